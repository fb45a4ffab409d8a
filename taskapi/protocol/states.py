"""The states of a run, and which of them may follow which."""

from enum import StrEnum
from uuid import UUID


class Status(StrEnum):
    """What a run is doing. A request, such as to cancel, is a flag on the run and not a state."""

    PENDING = "pending"  # recorded; waits for a worker
    RUNNING = "running"  # a worker executes it
    SUCCEEDED = "succeeded"  # `run` returned, and its outputs are valid
    FAILED = "failed"  # it raised, timed out, lost its worker, or returned invalid outputs
    CANCELLED = "cancelled"  # it ended because a caller asked it to


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    # back to pending: handed back by a worker that stops, taken from one that was lost, or to be tried again
    Status.RUNNING: FINAL | {Status.PENDING},
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


# A run, and the number of its attempt: what is meant for one attempt must not reach the next.
Execution = tuple[UUID, int]


class ErrorCode(StrEnum):
    """Why a run failed: the code in its representation."""

    EXCEPTION = "exception"  # `run` raised something that the caller must not see
    TASK_ERROR = "task_error"  # `run` raised TaskError: its message is for the caller
    TIMEOUT = "timeout"  # it took longer than the task's `timeout`
    WORKER_LOST = "worker_lost"  # its worker was lost, and the run may not be tried again
    PROCESS_LOST = "process_lost"  # its own process (`isolation`) was lost, and the run may not be tried again
    INVALID_OUTPUTS = "invalid_outputs"  # `run` returned something else than `outputs` declares
    UNKNOWN_TASK = "unknown_task"  # no worker knows a task of this name

    def __str__(self) -> str:
        return self.value
