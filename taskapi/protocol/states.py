"""The states of a run, and the moves between them that exist."""

from enum import StrEnum
from uuid import UUID


class Status(StrEnum):
    """What a run is doing; a request (to cancel, say) is a flag on the run and not a state."""

    PENDING = "pending"  # recorded; waits for a worker
    RUNNING = "running"  # a worker executes it
    SUCCEEDED = "succeeded"  # `run` returned, and its outputs are valid
    FAILED = "failed"  # it raised, timed out, lost its worker, or returned invalid outputs
    CANCELLED = "cancelled"  # it ended because somebody asked it to


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    # back to pending: handed back by a worker that stops, taken from one that was lost, or to be tried again
    Status.RUNNING: FINAL | {Status.PENDING},
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


Execution = tuple[
    UUID, int
]  # a run, and the number of its attempt: a later attempt is none of an earlier one's business


class ErrorCode(StrEnum):
    """Why a run failed, as its representation says it."""

    EXCEPTION = "exception"  # `run` raised something that is not for the caller's eyes
    TASK_ERROR = "task_error"  # `run` raised TaskError: its message is for the caller
    TIMEOUT = "timeout"  # it took longer than the task's `timeout`
    WORKER_LOST = "worker_lost"  # its worker went away, and it had no attempt left
    PROCESS_LOST = "process_lost"  # so did the process of its own in which it was executed
    INVALID_OUTPUTS = "invalid_outputs"  # what `run` returned is not what `outputs` declares
    UNKNOWN_TASK = "unknown_task"  # no worker knows a task of this name

    def __str__(self) -> str:
        return self.value
