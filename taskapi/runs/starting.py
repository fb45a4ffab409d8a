"""How a run is recorded, and queued once its row is committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from types import EllipsisType
from typing import Any, NamedTuple, Unpack
from uuid import UUID, uuid4

from django.db import IntegrityError, router, transaction

from taskapi.backends import get_backend
from taskapi.conf import as_duration, settings
from taskapi.exceptions import IdempotencyConflict, InvalidInputs, NotFinished
from taskapi.models import TaskInfo
from taskapi.params import ConversionContext
from taskapi.protocol import encode
from taskapi.runs.attempts import read_user
from taskapi.runs.inputs import GivenInputs
from taskapi.runs.moves import refresh
from taskapi.runs.queueing import enqueue, later, on_commit
from taskapi.store import rows
from taskapi.tasks import StartOptions, Task
from taskapi.tasks.registry import get_task


class DraftOptions(StartOptions, total=False):
    """The keyword arguments of `draft`: those of `Task.start`, and what the ways in add."""

    uuid: UUID
    build_absolute_uri: Callable[[str], str]
    same_inputs: bool


class Submission(NamedTuple):
    """A run, and whether this call made it (or an earlier one, with the same idempotency key)."""

    info: TaskInfo
    created: bool


def submit(task: type[Task], inputs: Any, **options: Unpack[DraftOptions]) -> Submission:
    """Record a run of the task, and queue it once the row is committed; arguments and errors as of `draft`."""
    return save(draft(task, inputs, **options))


def start(task: type[Task], inputs: Any, **options: Unpack[StartOptions]) -> TaskInfo:
    """As `submit`, for a caller that need not know whether the run is new."""
    return read_again_if_inline(submit(task, inputs, **options).info)


def retry(info: TaskInfo, build_absolute_uri: Callable[[str], str] = str) -> TaskInfo:
    """Start a new run of the same inputs, with the same user; NotFinished if this one has not ended."""
    refresh(info)
    if not info.is_final:
        raise NotFinished(info)
    user = read_user(info)
    again = submit(get_task(info.task), info.inputs, user=user, build_absolute_uri=build_absolute_uri, same_inputs=True)
    return read_again_if_inline(again.info)


def read_again_if_inline(info: TaskInfo) -> TaskInfo:
    """The run. If the backend executes it inline, it is read again as soon as it has ended."""
    if get_backend().inline:
        on_commit(partial(refresh, info))
    return info


def draft(
    task: type[Task],
    inputs: Any,
    *,
    user: Any = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    uuid: UUID | None = None,
    build_absolute_uri: Callable[[str], str] = str,
    same_inputs: bool = False,
) -> TaskInfo:
    """A run of the task that is not recorded yet; its inputs are converted and validated. Raises InvalidInputs.

    `user` is a user, or AnonymousUser or None for nobody. `delay` is in seconds. `same_inputs`: they are those of an
    earlier run, so `validate` may refuse them, but not change them. If `validate` refuses inputs that it accepted
    before under the same idempotency key, this is the run of that time.
    """
    context = context_of(user, build_absolute_uri)
    accepted = GivenInputs(task, inputs, context)
    info = new_run(task, context.user, start_time(delay, run_at), uuid)
    if idempotency_key is not None:
        info.idempotency = key_of(info, idempotency_key)
        info.idempotency_inputs = digest(encode(accepted.identity()))
    try:
        info.inputs = accepted.to_record(unchanged=same_inputs)
    except InvalidInputs:
        earlier = None if info.idempotency is None else _same_start(info)
        if earlier is None:
            raise
        return earlier
    return info


def save(draft: TaskInfo) -> Submission:
    """Record a drafted run, and queue it once the row is committed; or find the run of its idempotency key.

    Raises IdempotencyConflict, which leaves no row.
    """
    if draft.pk:  # the earlier run of its idempotency key
        return Submission(draft, created=False)
    info = copy(draft)  # an instance keeps its id, and after a rollback this is called again
    if info.idempotency is None:
        rows.insert(info)
    else:
        earlier = _insert_once(info)
        if earlier is not None:
            return Submission(earlier, created=False)
    on_commit(partial(enqueue, info))
    return Submission(info, created=True)


# What a run is made of


def context_of(user: Any, build_absolute_uri: Callable[[str], str] = str) -> ConversionContext:
    """For whom inputs are converted: a user, or nobody if that is AnonymousUser or None."""
    owner = user if user is not None and user.is_authenticated else None
    return ConversionContext(owner, None, build_absolute_uri)


def new_run(task: type[Task], owner: Any, run_at: datetime | None, uuid: UUID | None = None) -> TaskInfo:
    """A run of the task without its inputs."""
    return TaskInfo(
        uuid=uuid or uuid4(),
        task=task.name,
        queue=task.queue,
        user=owner,
        run_at=run_at,
        max_attempts=task.max_attempts,
        retain=settings.retention if isinstance(task.retain, EllipsisType) else as_duration(task.retain),
    )


def start_time(delay: float | timedelta | None, run_at: datetime | None) -> datetime | None:
    if delay is None:
        return run_at
    if run_at is not None:
        raise ValueError("Give `delay` or `run_at`, not both.")
    return later(delay if isinstance(delay, timedelta) else timedelta(seconds=delay))


def key_of(info: TaskInfo, idempotency_key: str) -> str:
    """What the row keeps of the key: the same for the same caller, task and key."""
    return digest(str(info.user_id or ""), info.task, idempotency_key)


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()


def _same_start(info: TaskInfo) -> TaskInfo | None:
    """The earlier run of the same idempotency key and the same inputs."""
    same = TaskInfo.rows().filter(idempotency=info.idempotency, idempotency_inputs=info.idempotency_inputs)
    return same.first()


def _insert_once(info: TaskInfo) -> TaskInfo | None:
    """Insert the run, or return the one that has its idempotency key already."""
    try:
        with transaction.atomic(router.db_for_write(TaskInfo)):
            rows.insert(info)
    except IntegrityError:
        earlier = TaskInfo.rows().filter(idempotency=info.idempotency).first()
        if earlier is None:  # it is not the key: the user was deleted, say
            raise
        if earlier.idempotency_inputs != info.idempotency_inputs:
            raise IdempotencyConflict from None
        return earlier
    return None
