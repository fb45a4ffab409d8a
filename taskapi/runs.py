"""The life of a run: the only code that writes a status.

Every function here is synchronous and writes one row, inside the caller's transaction where there is one.
Each that belongs to an attempt counts only while that attempt holds the run: it says so by what it returns.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync
from django.db import IntegrityError, router, transaction
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from taskapi.backends import get_backend
from taskapi.exceptions import IdempotencyConflict, InvalidInputs, TaskCancelled, TaskFailed
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import Parameter, dump_values, parse_inputs
from taskapi.protocol import SEQ_STATE, first_seq
from taskapi.states import FINAL, MOVES, ErrorCode, Status

logger = logging.getLogger(__name__)

FIRST_LOOK, LAST_LOOK = 0.005, 0.5  # seconds between two looks at a run whose result is waited for
SWEEP_AGE = timedelta(seconds=5)  # a pending run this old should have a job
SWEEP_ROWS = 1000  # looked at in one sweep


class Definition(Protocol):
    """What a run needs to know of its task."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Parameter]: ...


class Submission(NamedTuple):
    """A run, and whether this call made it (or an earlier one, with the same idempotency key)."""

    info: TaskInfo
    created: bool


class Outcome(NamedTuple):
    """How an attempt ended."""

    status: Status
    outputs: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    traceback: str = ""

    @classmethod
    def failed(cls, code: ErrorCode, message: str, traceback: str = "") -> Outcome:
        return cls(Status.FAILED, None, {"code": code.value, "message": message}, traceback)


# Submitting


def submit(
    task: Definition,
    inputs: Any,
    *,
    user: Any = None,
    delay: float | timedelta | None = None,
    run_at: datetime | None = None,
    idempotency_key: str | None = None,
    uuid: UUID | None = None,
) -> Submission:
    """Record a run of the task, and queue it once the row is committed.

    `user` is a user, or AnonymousUser or None for nobody.
    Raises InvalidInputs, and IdempotencyConflict; neither leaves a row. `delay` is in seconds.
    """
    stored = store_inputs(task, inputs)
    info = TaskInfo(
        uuid=uuid or uuid4(),
        task=task.name,
        queue=task.queue,
        inputs=stored,  # type: ignore[misc]  # the stubs take the field for its base class
        user=user if user is not None and user.is_authenticated else None,
        run_at=_start_time(delay, run_at),
    )
    if idempotency_key is not None:
        info.idempotency = _digest(info.user_id, task.name, idempotency_key)
        earlier = _insert_once(info)
        if earlier is not None:
            return Submission(earlier, created=False)
    else:
        info.save(force_insert=True)
    transaction.on_commit(partial(enqueue, info), using=router.db_for_write(TaskInfo))
    return Submission(info, created=True)


def start(task: Definition, inputs: Any, **options: Any) -> TaskInfo:
    """As `submit`, for those who need not know whether the run is new."""
    return submit(task, inputs, **options).info


def store_inputs(task: Definition, inputs: Any) -> dict[str, Any]:
    """The inputs as the JSON that is recorded: converted, so that each value has one form. Or InvalidInputs."""
    try:
        return dump_values(task.inputs, parse_inputs(task.inputs, inputs))
    except ValidationError as error:
        raise InvalidInputs(error.detail) from None


def enqueue(info: TaskInfo) -> None:
    """Queue a committed run. Where the queue is away the run waits in its row, and a sweep queues it later."""
    try:
        get_backend().enqueue(info.uuid, queue=info.queue, run_at=info.run_at)
    except Exception as error:  # noqa: BLE001 - each backend has errors of its own; none of them may undo what is committed
        logger.warning("Run %s is recorded but could not be queued yet: %r", info.uuid, error)


def _start_time(delay: float | timedelta | None, run_at: datetime | None) -> datetime | None:
    if delay is None:
        return run_at
    if run_at is not None:
        raise ValueError("Give `delay` or `run_at`, not both.")
    return timezone.now() + (delay if isinstance(delay, timedelta) else timedelta(seconds=delay))


def _digest(user_id: Any, task: str, key: str) -> str:
    """One column for (caller, task, key): anonymous callers count as one caller."""
    return hashlib.sha256("\0".join((str(user_id or ""), task, key)).encode(errors="surrogatepass")).hexdigest()


def _insert_once(info: TaskInfo) -> TaskInfo | None:
    """Insert the run, or return the one that has its idempotency key already."""
    try:
        with transaction.atomic(router.db_for_write(TaskInfo)):
            info.save(force_insert=True)
    except IntegrityError:
        earlier = TaskInfo.objects.get(idempotency=info.idempotency)
        if earlier.inputs != info.inputs:
            raise IdempotencyConflict from None
        return earlier
    return None


# Executing


def begin(uuid: UUID) -> TaskInfo | None:
    """Take a pending run up: the next attempt is the caller's. None where there is nothing to take up."""
    info = TaskInfo.objects.filter(uuid=uuid, status=Status.PENDING.value).first()
    if info is None:
        return None
    attempt = info.attempt + 1
    changes = {"attempt": attempt, "seq": first_seq(attempt) + SEQ_STATE, "started": timezone.now()}
    if attempt > 1:
        changes.update(target=None, progress=None)
    if not _move(info, Status.RUNNING, **changes):
        return None
    info.user  # noqa: B018 - read here, and kept: an async task could not read it
    return info


def record(
    info: TaskInfo, *, seq: int, target: int | None, progress: int | None, messages: Sequence[TaskMessage]
) -> bool:
    """Write what a running attempt has said; False where the run is no longer this attempt's."""
    said = {"seq": seq, "target": target, "progress": progress, "message_count": _count(info, messages)}
    if not _held(info).update(**said):
        return False
    TaskMessage.objects.bulk_create(messages)
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
    final = TaskInfo.objects.get(pk=info.pk)
    if final.attempt != info.attempt:
        return None
    ended = _move(
        final,
        outcome.status,
        seq=seq,
        target=target,
        progress=progress,
        message_count=_count(info, messages),
        outputs=outcome.outputs,
        error=outcome.error,
        traceback=_storable(outcome.traceback),
        finished=timezone.now() if outcome.status in FINAL else None,
    )
    if not ended:
        return None
    TaskMessage.objects.bulk_create(messages)
    if final.status == Status.PENDING:
        transaction.on_commit(partial(enqueue, final), using=router.db_for_write(TaskInfo))
    return final


def _storable(text: str) -> str:
    """The text without what a text column refuses: lone surrogates anywhere, NUL on PostgreSQL."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _count(info: TaskInfo, messages: Sequence[TaskMessage]) -> int:
    return messages[-1].index + 1 if messages else info.message_count


def _held(info: TaskInfo) -> Any:
    """The row, while it is as `info` knows it: compare, for the set that follows."""
    return TaskInfo.objects.filter(pk=info.pk, status=info.status, attempt=info.attempt)


def _move(info: TaskInfo, to: Status, **changes: Any) -> bool:
    """The one place where a status changes: compare and set. Who loses the race changes nothing."""
    if to not in MOVES[Status(info.status)]:
        return False
    changes["status"] = to.value
    if not _held(info).update(**changes):
        return False
    for name, value in changes.items():
        setattr(info, name, value)
    return True


# Sweeping


def sweep(queues: Iterable[str], after: int = 0) -> int:
    """Queue pending runs again that have no job: Redis was away when they were committed, or lost them.

    Looks at a page of rows past the id `after`, and returns where the next page begins.
    """
    backend = get_backend()
    now = timezone.now()
    rows = list(
        TaskInfo.objects.filter(status=Status.PENDING.value, id__gt=after, created__lt=now - SWEEP_AGE).order_by("id")[
            :SWEEP_ROWS
        ]
    )
    for queue in queues:
        mine = {info.uuid: info for info in rows if info.queue == queue}
        for uuid in backend.missing(queue, mine):
            logger.info("Run %s had no job; queueing it again.", uuid)
            enqueue(mine[uuid])
    return rows[-1].pk if len(rows) == SWEEP_ROWS else 0


# Waiting


async def aresult(info: TaskInfo, timeout: float | None = None) -> dict[str, Any]:
    """The outputs of the run once it has ended; see TaskInfo.result."""
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    pause = FIRST_LOOK
    while info.status not in FINAL:
        if deadline is not None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise TimeoutError(f"The run {info.uuid} is {info.status} after {timeout} s.")
            pause = min(pause, left)
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, LAST_LOOK)
        await info.arefresh_from_db()
    if info.status == Status.FAILED:
        raise TaskFailed(info)
    if info.status == Status.CANCELLED:
        raise TaskCancelled(info)
    return info.outputs or {}


def result(info: TaskInfo, timeout: float | None = None) -> dict[str, Any]:
    """As `aresult`, for synchronous code."""
    return async_to_sync(aresult)(info, timeout)
