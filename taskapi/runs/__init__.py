"""The life of a run: the only code that writes a status.

Every function here is synchronous and writes one row, inside the caller's transaction where there is one.
Each that belongs to an attempt counts only while that attempt holds the run: it says so by what it returns.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from types import EllipsisType
from typing import Any, NamedTuple, Protocol
from uuid import UUID, uuid4

from django.db import IntegrityError, OperationalError, router, transaction
from django.db.models import DateTimeField, Value
from django.db.models.lookups import LessThan
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty

from taskapi import events
from taskapi.backends import get_backend
from taskapi.conf import as_duration, settings
from taskapi.exceptions import IdempotencyConflict, InvalidInputs, NotFinished
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import Parameter, dump_values, is_given, parse_inputs
from taskapi.protocol import SEQ_STATE, Report, State, encode, first_seq
from taskapi.protocol.states import FINAL, MOVES, ErrorCode, Status
from taskapi.store import rows
from taskapi.tasks.registry import get_task

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=10)  # for which a worker holds its runs without renewing: three renewals, and a pause
EARLY = timedelta(seconds=1)  # by which the clocks of hosts, of the database and of Redis may differ
UNKNOWN_PAUSE = timedelta(seconds=10)  # before any worker is asked once more for a run that one could not execute
UNKNOWN_LIMIT = timedelta(minutes=10)  # for which none could: longer than a deploy takes
MOST_TRIES = 100  # to change a run that others change: in the second, its row has been read afresh


class Definition(Protocol):
    """What a run needs to know of its task; see taskapi.tasks.Task."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Parameter]: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def retain(self) -> float | timedelta | EllipsisType | None: ...


class Submission(NamedTuple):
    """A run, and whether this call made it (or an earlier one, with the same idempotency key)."""

    info: TaskInfo
    created: bool


class Again(Enum):
    """Why an attempt ended whose run is to be executed again."""

    RAISED = "raised"  # what the task's `retry_on` names
    HANDED_BACK = "handed back"  # its worker was told to end
    WORKER_LOST = "worker lost"  # its worker went away
    PROCESS_LOST = "process lost"  # the process of its own did


class Outcome(NamedTuple):
    """How an attempt ended."""

    status: Status
    outputs: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    traceback: str = ""
    run_at: datetime | None = None  # of an attempt that is `pending` again: when the next may begin
    again: Again = Again.RAISED  # the same: why

    @property
    def is_unknown_task(self) -> bool:
        return self.error is not None and self.error["code"] == ErrorCode.UNKNOWN_TASK

    refused: bool = False  # the same: the task was not called, and others may take it; else `error` is its end

    @classmethod
    def failed(cls, code: ErrorCode, message: str, traceback: str = "") -> Outcome:
        return cls(Status.FAILED, None, {"code": code.value, "message": message}, traceback)


CANCELLED = Outcome(Status.CANCELLED)
HANDED_BACK = Outcome(Status.PENDING, again=Again.HANDED_BACK)
WORKER_LOST = Outcome(Status.PENDING, again=Again.WORKER_LOST)
PROCESS_LOST = Outcome(Status.PENDING, again=Again.PROCESS_LOST)
_SPENT = Outcome.failed(ErrorCode.WORKER_LOST, "The worker went away, as often as the run may be tried.")
_SPENT_ALONE = Outcome.failed(
    ErrorCode.PROCESS_LOST, "The process of the run went away, and the run may not be tried again."
)


# Submitting


def submit(task: Definition, inputs: Any, **options: Any) -> Submission:
    """Record a run of the task, and queue it once the row is committed; arguments and errors as of `draft`."""
    return save(draft(task, inputs, **options))


def draft(
    task: Definition,
    inputs: Any,
    *,
    user: Any = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    uuid: UUID | None = None,
) -> TaskInfo:
    """A run of the task that is not recorded yet.

    `user` is a user, or AnonymousUser or None for nobody. `delay` is in seconds. Raises InvalidInputs.
    """
    converted = _convert(task, inputs)
    info = TaskInfo(
        uuid=uuid or uuid4(),
        task=task.name,
        queue=task.queue,
        inputs=_without_defaults(task, inputs, converted),  # type: ignore[misc]  # the stubs take the field for its base class
        user=user if user is not None and user.is_authenticated else None,
        run_at=_start_time(delay, run_at),
        max_attempts=task.max_attempts,
        retain=settings.retention if isinstance(task.retain, EllipsisType) else as_duration(task.retain),
    )
    if idempotency_key is not None:
        info.idempotency = _digest(str(info.user_id or ""), task.name, idempotency_key)
        given = {
            name: value
            for name, value in converted.items()
            if name in inputs or not callable(task.inputs[name].default)
        }
        info.idempotency_inputs = _digest(encode(given))
    return info


def save(draft: TaskInfo) -> Submission:
    """Record a drafted run, and queue it once the row is committed; or find that of its idempotency key.

    Raises IdempotencyConflict, which leaves no row.
    """
    info = copy(draft)  # an instance remembers its id, and this may be rolled back and called again
    if info.idempotency is None:
        rows.insert(info)
    else:
        earlier = _insert_once(info)
        if earlier is not None:
            return Submission(earlier, created=False)
    on_commit(partial(enqueue, info))
    return Submission(info, created=True)


def start(task: Definition, inputs: Any, **options: Any) -> TaskInfo:
    """As `submit`, for those who need not know whether the run is new."""
    return submit(task, inputs, **options).info


def store_inputs(task: Definition, inputs: Any) -> dict[str, Any]:
    """The inputs as the JSON that is recorded: converted, so that each value has one form. Or InvalidInputs.

    Without the defaults that are the same each time: whoever executes the run adds them, from its own declaration.
    That of another version may not have an input that nobody has given.
    """
    return _without_defaults(task, inputs, _convert(task, inputs))


def _convert(task: Definition, inputs: Any) -> dict[str, Any]:
    try:
        return dump_values(task.inputs, parse_inputs(task.inputs, inputs))
    except ValidationError as error:
        raise InvalidInputs(error.detail) from None


def _without_defaults(task: Definition, inputs: Mapping[str, Any], converted: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in converted.items()
        if callable(task.inputs[name].default) or is_given(task.inputs[name], inputs.get(name, empty))
    }


def enqueue(info: TaskInfo) -> None:
    """Queue a committed run. Where the queue is away the run waits in its row, and a sweep queues it later."""
    try:
        run_at = None if info.run_at is None else info.run_at - _skew()  # a queue waits by the clock of its host
        get_backend().enqueue(info.uuid, queue=info.queue, run_at=run_at)
    except Exception as error:  # noqa: BLE001 - each backend has errors of its own; none of them may undo what is committed
        logger.warning("Run %s is recorded but could not be queued yet: %r", info.uuid, error)


def _start_time(delay: float | timedelta | None, run_at: datetime | None) -> datetime | None:
    if delay is None:
        return run_at
    if run_at is not None:
        raise ValueError("Give `delay` or `run_at`, not both.")
    return _later(delay if isinstance(delay, timedelta) else timedelta(seconds=delay))


def _later(by: timedelta) -> datetime:
    """So long after now, by the clock that decides when a run may begin: the database's."""
    return timezone.now() + _skew() + by


def _skew() -> timedelta:
    """By how much the database's clock is ahead of this host's; nothing where that is what clocks differ by anyway."""
    skew = rows.now() - timezone.now()
    return skew if abs(skew) > EARLY else timedelta(0)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()


def _insert_once(info: TaskInfo) -> TaskInfo | None:
    """Insert the run, or return the one that has its idempotency key already."""
    try:
        with transaction.atomic(router.db_for_write(TaskInfo)):
            rows.insert(info)
    except IntegrityError:
        earlier = TaskInfo.rows().get(idempotency=info.idempotency)
        if earlier.idempotency_inputs != info.idempotency_inputs:
            raise IdempotencyConflict from None
        return earlier
    return None


# Executing


def begin(
    uuid: UUID, worker: str = "", refuse: Callable[[TaskInfo], Outcome | None] = lambda info: None
) -> TaskInfo | None:
    """Take a pending run up: the next attempt is the worker's, for as long as it renews its lease.

    None where there is nothing to take up. A run that this worker cannot execute (it is of another version: `refuse`
    says with which outcome) is left for others, and ends so when none of them has taken it for UNKNOWN_LIMIT.
    """
    info = rows.read({"uuid": uuid, "status": Status.PENDING.value})
    if info is None:
        return None
    refusal = refuse(info)
    if refusal is not None:
        _leave(info, refusal)
        return None
    if info.run_at is not None and _is_now(info, run_at__gt=rows.CLOCK + EARLY):  # a job of an earlier attempt
        on_commit(partial(enqueue, info))
        return None
    left_since = info.renewed
    attempt = info.attempt + 1
    changes: dict[str, Any] = {"attempt": attempt, "seq": first_seq(attempt) + SEQ_STATE, "started": timezone.now()}
    if attempt > 1:
        changes.update(target=None, progress=None)
    if not _move(info, Status.RUNNING, worker=worker, renewed=rows.NOW, **changes):
        return None
    info.left_since = left_since
    _read_user(info)  # here, and kept: an async task could not read it
    return info


def _read_user(info: TaskInfo) -> Any:
    """The user of the run, read where users are written: a replica may not know a new one yet."""
    field: Any = TaskInfo._meta.get_field("user")  # noqa: SLF001 - Django's public name for it
    if info.user_id is not None and not field.is_cached(info):
        users = field.remote_field.model
        user = users._base_manager.using(router.db_for_write(users)).get(pk=info.user_id)  # noqa: SLF001 - as above
        field.set_cached_value(info, user)
    return info.user


def is_recorded(uuid: UUID) -> bool:
    """Whether there is such a run at all."""
    return TaskInfo.rows().filter(uuid=uuid).exists()


def _leave(info: TaskInfo, refusal: Outcome) -> None:
    """Leave a run that cannot be executed here to other workers; `renewed` says since when nobody has taken it."""
    if info.renewed is None:
        logger.info("Run %s is left to workers of another version: %s", info.uuid, _sentence(refusal))
        rows.change(_held(info), {"renewed": rows.NOW})
    elif _is_left_for_good(info, info.renewed):
        if end(info, refusal):
            on_commit(partial(events.publish_from_thread, info.uuid, final_report(info)))
        return
    on_commit(partial(_offer, info))


def _is_now(info: TaskInfo, *conditions: Any, **compared: Any) -> bool:
    """Whether that is true of the row by the database's clock."""
    return TaskInfo.rows().filter(*conditions, pk=info.pk, **compared).exists()


def _is_left_for_good(info: TaskInfo, since: datetime) -> bool:
    """Whether workers have left it for longer than a deploy takes; `since` is by the clock of leases."""
    return _is_now(info, LessThan(Value(since, DateTimeField()), rows.NOW - UNKNOWN_LIMIT))


def _sentence(outcome: Outcome) -> str:
    return outcome.error["message"] if outcome.error else ""


def _offer(info: TaskInfo) -> None:
    """Offer a run that was left to workers of another version, at once, and then to anybody once more."""
    with suppress(Exception):  # the queue is away: `enqueue` says so
        get_backend().set_aside(info.uuid, queue=info.queue)
    info.run_at = _later(UNKNOWN_PAUSE)  # of the job, not of the row
    enqueue(info)


def record(
    info: TaskInfo, *, seq: int, target: int | None, progress: int | None, messages: Sequence[TaskMessage]
) -> bool:
    """Write what a running attempt has said; False where the run is no longer this attempt's."""
    said = {"seq": seq, "target": target, "progress": progress, "message_count": _count(info, messages)}
    if not rows.change(_held(info), said):
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

    Returns the run as it ended, or None where it is no longer this attempt's. An outcome that is `pending`
    hands the run back: it is queued again, for another worker.
    """
    said: dict[str, Any] = {"target": target, "progress": progress, "message_count": _count(info, messages)}
    final: TaskInfo | None = copy(info)
    for _ in _tries(info):
        if final is None or end(final, outcome, seq=seq, **said):
            break
        final = rows.read(_held(info), lock=True)  # somebody has asked it to stop meanwhile; or it is another attempt's
    if final is None:
        return None
    _append(messages)
    return final


def end(info: TaskInfo, outcome: Outcome, *, seq: int | None = None, **said: Any) -> bool:
    """Move an unfinished run to its outcome; False where it is not as `info` knows it any more.

    An outcome that is `pending` queues the run again for its next attempt; where it has had its last, or was
    asked to stop, that is its end. Without a `seq` of an attempt that still reports, the run's next one is
    above all that the attempt can have said.
    """
    if outcome.refused and not info.cancel_requested:
        return _hand_on(info, outcome, **({} if seq is None else {"seq": seq}), **said)
    if outcome.status is Status.PENDING:
        said |= _count_in(info, outcome.again)
        outcome = _after(info, outcome)
    final = outcome.status in FINAL
    ended_at = timezone.now() if final else None
    ended = _move(
        info,
        outcome.status,
        seq=first_seq(info.attempt + 1) - 1 if seq is None else seq,
        outputs=outcome.outputs,
        error=outcome.error,
        traceback=_storable(outcome.traceback),
        run_at=info.run_at if final else outcome.run_at and outcome.run_at + _skew(),
        finished=ended_at,
        expires=None if ended_at is None or info.retain is None else rows.Later(info.retain),
        worker="",
        renewed=None,
        **said,
    )
    if not ended:
        return False
    if ended_at is None:
        on_commit(partial(enqueue, info))
    elif info.retain is not None:
        info.expires = ended_at + info.retain  # about: the row has it by the database's clock
    return True


def _count_in(info: TaskInfo, again: Again) -> dict[str, int]:
    """What the row remembers of an attempt that was cut short."""
    if again is Again.HANDED_BACK:
        return {"handed_back": info.handed_back + 1}
    if again is Again.WORKER_LOST:
        return {"lost": info.lost + 1}
    return {}


def _after(info: TaskInfo, outcome: Outcome) -> Outcome:
    """The outcome that is `pending`, or the end of a run that was asked to stop, or may not be executed again."""
    if info.cancel_requested:
        return CANCELLED
    # An attempt that is handed back does not count. But a run of one attempt is to be executed once, whatever happens.
    last = info.max_attempts == 1 if outcome.again is Again.HANDED_BACK else info.tries >= info.max_attempts
    if not last:
        return outcome
    return _SPENT_ALONE if outcome.again is Again.PROCESS_LOST else _SPENT


def _hand_on(info: TaskInfo, refusal: Outcome, **said: Any) -> bool:
    """Leave a run to others whose inputs turned out, once it had begun, to be none for its task as it is here.

    That was no attempt of its task, and does not count.
    """
    since = info.left_since
    if since is not None and _is_left_for_good(info, since):
        return end(info, Outcome(Status.FAILED, error=refusal.error), **said)
    logger.info("Run %s is left to workers of another version: %s", info.uuid, _sentence(refusal))
    left: dict[str, Any] = {"renewed": rows.NOW if since is None else since, "handed_back": info.handed_back + 1}
    if not _move(info, Status.PENDING, worker="", **said, **left):
        return False
    on_commit(partial(_offer, copy(info)))
    return True


def _append(messages: Sequence[TaskMessage]) -> None:
    # Copies: an instance remembers the id that it was inserted with, and this may be rolled back and called again.
    # A commit whose answer was lost is repeated, too: then they are there.
    if messages:
        TaskMessage.objects.bulk_create(map(copy, messages), ignore_conflicts=True)


def _storable(text: str) -> str:
    """The text without what a text column refuses: lone surrogates anywhere, NUL on PostgreSQL."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _count(info: TaskInfo, messages: Sequence[TaskMessage]) -> int:
    return messages[-1].index + 1 if messages else info.message_count


def _held(info: TaskInfo) -> dict[str, Any]:
    """The row, while it is as `info` knows it: compare, for the set that follows."""
    return {"pk": info.pk, "status": info.status, "attempt": info.attempt}


def _move(info: TaskInfo, to: Status, **changes: Any) -> bool:
    """The one place where a status changes: compare and set. Who loses the race changes nothing."""
    if to not in MOVES[Status(info.status)]:
        return False
    changes["status"] = to.value
    if not rows.change(_held(info) | {"cancel_requested": info.cancel_requested}, changes):
        return False
    for name, value in changes.items():
        setattr(info, name, value)
    return True


# Asking


def cancel(info: TaskInfo) -> bool:
    """Ask a run to stop; False where it has ended.

    One that waits is cancelled here. One that runs is told by a flag in its row, which its worker reads each
    time that it renews its lease, and by an event, which is sooner.
    """
    # No transaction of its own: each try is one statement, so SQLite need not wait for a lock that it would be refused.
    _refresh(info)
    for _ in _tries(info):
        if info.is_final:
            return False
        if info.status == Status.PENDING and end(info, CANCELLED, cancel_requested=True):
            on_commit(partial(events.publish_from_thread, info.uuid, final_report(info)))
            return True
        if info.status == Status.RUNNING and rows.change(_held(info), {"cancel_requested": True}):
            info.cancel_requested = True
            on_commit(partial(events.tell_workers, info.uuid, info.attempt))
            return True
        _refresh(info, lock=True)  # it has moved on meanwhile
    return False


def _refresh(info: TaskInfo, *, lock: bool = False) -> None:
    """Read the run again; DoesNotExist if it was deleted."""
    read = rows.read({"pk": info.pk}, lock=lock)
    if read is None:
        raise TaskInfo.DoesNotExist(f"The run {info.uuid} was deleted.")
    for field in TaskInfo._meta.concrete_fields:  # noqa: SLF001 - Django's public name for it
        if field.attname != "user_id":  # which never changes, and whose user may have been read
            setattr(info, field.attname, getattr(read, field.attname))


def _tries(info: TaskInfo) -> Iterator[int]:
    """So many tries to change a run that others change meanwhile. Then OperationalError, which a ledger tries on."""
    yield from range(MOST_TRIES)
    raise OperationalError(f"The run {info.uuid} had changed each of the {MOST_TRIES} times that it was to be changed.")


def retry(info: TaskInfo) -> TaskInfo:
    """Start a new run of the same inputs, with the same user; NotFinished where this one has not ended."""
    _refresh(info)
    if not info.is_final:
        raise NotFinished(info)
    return start(get_task(info.task), info.inputs, user=_read_user(info))


def final_report(info: TaskInfo) -> Report:
    """What followers are told of a run that ended, or waits again, without a word of its attempt."""
    before = State(info.uuid, info.seq - 1)  # nobody knows what was heard before
    return Report.between(before, info, info.message_count)


def on_commit(function: Callable[[], object]) -> None:
    """Call `function` when the row is committed, and not at all after a rollback."""
    transaction.on_commit(function, using=router.db_for_write(TaskInfo))
