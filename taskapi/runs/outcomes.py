"""How an attempt ended, before it is recorded."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from taskapi.protocol.states import ErrorCode, Status


class RerunReason(Enum):
    """Why a run is executed again after its attempt has ended."""

    RETRY_ON = "retry_on"  # the attempt raised an exception that the task's `retry_on` names
    HANDED_BACK = "handed back"  # the worker was told to end
    WORKER_LOST = "worker lost"  # the worker went away
    PROCESS_LOST = "process lost"  # the run's own process went away


class Outcome(NamedTuple):
    """How an attempt ended. The status `pending` says that the run is to be executed again."""

    status: Status
    outputs: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    traceback: str = ""
    run_at: datetime | None = None  # if pending: when the next attempt may begin
    reason: RerunReason = RerunReason.RETRY_ON  # if pending: why
    refused: bool = False  # if pending: the task was not called; `error` is the run's end if no other worker takes it
    goes_on: bool = False  # if pending: the next attempt follows at once, in the same place, so no job is queued for it
    files: tuple[int, ...] = ()  # if succeeded: the ids of the files among the outputs, which are stored already

    @property
    def is_unknown_task(self) -> bool:
        return self.error is not None and self.error["code"] == ErrorCode.UNKNOWN_TASK

    @property
    def message(self) -> str:
        """The sentence of its error."""
        return self.error["message"] if self.error else ""

    @classmethod
    def failed(cls, code: ErrorCode, message: str, traceback: str = "") -> Outcome:
        return cls(Status.FAILED, None, {"code": code.value, "message": message}, traceback)


CANCELLED = Outcome(Status.CANCELLED)
HANDED_BACK = Outcome(Status.PENDING, reason=RerunReason.HANDED_BACK)
WORKER_LOST = Outcome(Status.PENDING, reason=RerunReason.WORKER_LOST)
PROCESS_LOST = Outcome(Status.PENDING, reason=RerunReason.PROCESS_LOST)
