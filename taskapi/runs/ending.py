"""How a run ends, or waits for its next attempt."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.utils import timezone

from taskapi.conf import settings
from taskapi.files import settle
from taskapi.models import TaskInfo
from taskapi.protocol import Report, State, first_seq
from taskapi.protocol.states import FINAL, ErrorCode, Status
from taskapi.runs.moves import move
from taskapi.runs.outcomes import CANCELLED, Outcome, RerunReason
from taskapi.runs.queueing import enqueue, on_commit, skew
from taskapi.runs.versions import hand_on, is_left_for_good
from taskapi.store import rows
from taskapi.tasks.registry import returns_files

_LAST_WORKER_LOST = Outcome.failed(ErrorCode.WORKER_LOST, "The worker went away, and the run may not be tried again.")
_LAST_PROCESS_LOST = Outcome.failed(
    ErrorCode.PROCESS_LOST, "The process of the run went away, and the run may not be tried again."
)


def end(info: TaskInfo, outcome: Outcome, *, seq: int | None = None, **said: Any) -> bool:
    """Move an unfinished run to its outcome; False if the row is not as `info` knows it any more.

    A pending outcome queues the run again for its next attempt. If that was its last attempt, or somebody has asked it
    to stop, the run ends. Without the `seq` of an attempt that still reports, the new `seq` is above all that
    the attempt can have said.
    """
    if outcome.refused and not info.cancel_requested:
        if not is_left_for_good(info.left_since, info):
            return hand_on(info, outcome, **({} if seq is None else {"seq": seq}), **said)
        outcome = Outcome(Status.FAILED, error=outcome.error)
    if outcome.status is Status.PENDING:
        said |= _cut_short(info, outcome.reason)
        outcome = _unless_last(info, outcome)
    final = outcome.status in FINAL
    ended_at = timezone.now() if final else None
    ended = move(
        info,
        outcome.status,
        seq=first_seq(info.attempt + 1) - 1 if seq is None else seq,
        outputs=outcome.outputs,
        error=outcome.error,
        traceback=_storable(outcome.traceback),
        run_at=info.run_at if final else outcome.run_at and outcome.run_at + skew(),
        finished=ended_at,
        expires=None if ended_at is None or info.retain is None else rows.Later(info.retain),
        worker="",
        renewed=None,
        **said,
    )
    if not ended:
        return False
    if outcome.files or settings.offload_bytes is not None or returns_files(info.task):
        settle(info, outcome.files)
    if ended_at is None:
        if not outcome.goes_on:
            on_commit(partial(enqueue, info))
    elif info.retain is not None:
        info.expires = ended_at + info.retain  # about: the row has it by the database's clock
    return True


def final_report(info: TaskInfo) -> Report:
    """What followers are told of a run that has ended, or waits again, if its attempt says nothing itself."""
    before = State(info.uuid, info.seq - 1)  # it is not known what followers have heard before
    return Report.between(before, info, info.message_count)


def _cut_short(info: TaskInfo, reason: RerunReason) -> dict[str, int]:
    """What the row remembers of an attempt that was cut short."""
    if reason is RerunReason.HANDED_BACK:
        return {"handed_back": info.handed_back + 1}
    if reason is RerunReason.WORKER_LOST:
        return {"lost": info.lost + 1}
    return {}


def _unless_last(info: TaskInfo, outcome: Outcome) -> Outcome:
    """The pending outcome, or the end of a run that was asked to stop, or may not be executed again."""
    if info.cancel_requested:
        return CANCELLED
    # An attempt that is handed back does not count. But a run of one attempt is executed once, whatever happens.
    handed_back = outcome.reason is RerunReason.HANDED_BACK
    is_last = info.max_attempts == 1 if handed_back else info.tries >= info.max_attempts
    if not is_last:
        return outcome
    return _LAST_PROCESS_LOST if outcome.reason is RerunReason.PROCESS_LOST else _LAST_WORKER_LOST


def _storable(text: str) -> str:
    """The text without what a text column refuses: lone surrogates everywhere, NUL on PostgreSQL."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
