"""One attempt of a run, as its row has it: taken up by a worker, reported, finished.

An attempt writes only while it holds the run. Each function says by what it returns whether that was so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import router
from django.utils import timezone

from taskapi import events
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_STATE, first_seq
from taskapi.protocol.states import Status
from taskapi.runs.ending import end, final_report
from taskapi.runs.moves import as_known, move, tries
from taskapi.runs.outcomes import Outcome
from taskapi.runs.queueing import EARLY, enqueue, on_commit
from taskapi.runs.versions import is_left_for_good, leave
from taskapi.store import rows

LEASE = timedelta(seconds=10)  # for which a worker holds its runs without renewing: three renewals, and a pause


def begin(
    uuid: UUID,
    worker: str = "",
    refuse: Callable[[TaskInfo], Outcome | None] = lambda info: None,
    *,
    early: bool = False,
) -> TaskInfo | None:
    """Take a pending run up: the next attempt is the worker's, for as long as it renews its lease.

    None if there is nothing to take up. `refuse` gives an outcome for a run that this worker cannot execute, because
    it is of another version. Such a run is left for others, and ends with that outcome if no worker has taken it for
    UNKNOWN_LIMIT. `early`: take it up even before its `run_at`.
    """
    info = rows.read({"uuid": uuid, "status": Status.PENDING.value})
    if info is None:
        return None
    refusal = refuse(info)
    if refusal is not None:
        _refused(info, refusal)
        return None
    if info.run_at is not None and not early and _is_early(info):  # a job of an earlier attempt
        on_commit(partial(enqueue, info))
        return None
    left_since = info.renewed
    attempt = info.attempt + 1
    changes: dict[str, Any] = {"attempt": attempt, "seq": first_seq(attempt) + SEQ_STATE, "started": timezone.now()}
    if attempt > 1:
        changes.update(target=None, progress=None)
    if not move(info, Status.RUNNING, worker=worker, renewed=rows.NOW, **changes):
        return None
    info.left_since = left_since
    read_user(info)  # now: an async task could not read it later
    return info


def record(
    info: TaskInfo, *, seq: int, target: int | None, progress: int | None, messages: Sequence[TaskMessage]
) -> bool:
    """Write what a running attempt has said; False if the attempt does not hold the run any more."""
    said = {"seq": seq, "target": target, "progress": progress, "message_count": _message_count(info, messages)}
    if not rows.change(as_known(info), said):
        return False
    _append(messages)
    return True


def finish(
    info: TaskInfo,
    outcome: Outcome,
    *,
    seq: int,
    target: int | None,
    progress: int | None,
    messages: Sequence[TaskMessage],
) -> TaskInfo | None:
    """Write the last words and the outcome of a running attempt.

    Returns the run as it ended, or None if the attempt does not hold it any more. A pending outcome hands the run
    back: it is queued again, for another worker.
    """
    said: dict[str, Any] = {"target": target, "progress": progress, "message_count": _message_count(info, messages)}
    final: TaskInfo | None = copy(info)
    for _ in tries(info):
        if final is None or end(final, outcome, seq=seq, **said):
            break
        final = rows.read(as_known(info), lock=True)  # somebody asked it to stop meanwhile; or another attempt has it
    if final is None:
        return None
    _append(messages)
    return final


def is_recorded(uuid: UUID) -> bool:
    """Whether there is such a run at all."""
    return TaskInfo.rows().filter(uuid=uuid).exists()


def read_user(info: TaskInfo) -> Any:
    """The user of the run, read from where users are written: a replica may not have a new one yet."""
    field: Any = TaskInfo._meta.get_field("user")  # noqa: SLF001 - Django's public name for it
    if info.user_id is not None and not field.is_cached(info):
        users = field.remote_field.model
        user = users._base_manager.using(router.db_for_write(users)).get(pk=info.user_id)  # noqa: SLF001 - as above
        field.set_cached_value(info, user)
    return info.user


def _refused(info: TaskInfo, refusal: Outcome) -> None:
    if not is_left_for_good(info.renewed, info):
        leave(info, refusal)
    elif end(info, refusal):
        on_commit(partial(events.publish_from_thread, info.uuid, final_report(info)))


def _is_early(info: TaskInfo) -> bool:
    """Whether the run is not due yet, by the database's clock."""
    return TaskInfo.rows().filter(pk=info.pk, run_at__gt=rows.CLOCK + EARLY).exists()


def _append(messages: Sequence[TaskMessage]) -> None:
    # Copies: an instance keeps the id that it was inserted with, and after a rollback this is called again.
    # It is also called again after a commit whose answer was lost; then the messages are there already.
    if messages:
        TaskMessage.objects.bulk_create(map(copy, messages), ignore_conflicts=True)


def _message_count(info: TaskInfo, messages: Sequence[TaskMessage]) -> int:
    return messages[-1].index + 1 if messages else info.message_count
