"""What can go wrong, as one tree::

TaskAPIError
├── InvalidInputs          the caller's inputs do not fit the task
├── UnknownTask            no task of this name is registered
├── UnknownRun             no run of this uuid is recorded here
├── AlreadyFinished        a run that has ended cannot be cancelled
├── NotFinished            a run that has not ended cannot be started again
├── IdempotencyConflict    a used idempotency key came with other inputs
├── TaskError              raised by `run` to fail with a message for the caller
├── RunEnded               raised by `info.result()` if the run ended without outputs
│   ├── TaskFailed
│   └── TaskCancelled
└── ProtocolError          a client frame that breaks the protocol (taskapi.protocol)

Interrupted (BaseException)   raised inside a sync `run` that has to stop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskapi.models import TaskInfo


class TaskAPIError(Exception):
    """The root of every error of this package."""


class InvalidInputs(TaskAPIError):
    """The inputs do not fit the task; `detail` is ``{name: [sentence, …]}``, or a list if they are no mapping.

    Of `start_many`, it is ``{index: …}`` of those inputs that do not fit.
    """

    def __init__(self, detail: Any) -> None:
        super().__init__(detail)
        self.detail = detail


class UnknownTask(TaskAPIError):
    """No task of this name is registered in TASK_API_BACKGROUND_TASKS."""

    def __init__(self, name: object) -> None:
        super().__init__(f"There is no task named {name!r}.")
        self.name = name


class UnknownRun(TaskAPIError):
    """No row has this uuid: the run was deleted, or belongs to another installation."""

    def __init__(self, uuid: object) -> None:
        super().__init__(f"There is no run {uuid}.")
        self.uuid = uuid


class NotFinished(TaskAPIError):
    """A run that has not ended cannot be started again."""

    def __init__(self, info: TaskInfo) -> None:
        super().__init__(f"The run is {info.status}; one that has not ended cannot be retried.")
        self.info = info


class AlreadyFinished(TaskAPIError):
    """A run that has ended cannot be cancelled."""

    def __init__(self, info: TaskInfo) -> None:
        super().__init__(f"The run has ended ({info.status}); it cannot be cancelled.")
        self.info = info


class IdempotencyConflict(TaskAPIError):
    """The idempotency key was used before, with other inputs."""

    def __init__(self) -> None:
        super().__init__("This idempotency key was used before with other inputs.")


class TaskError(TaskAPIError):
    """Raise it from `run` to fail with a message that the caller may read."""


class RunEnded(TaskAPIError):
    """The run ended without outputs; `info` is its TaskInfo."""

    def __init__(self, message: str, info: TaskInfo) -> None:
        super().__init__(message)
        self.info = info


class TaskFailed(RunEnded):
    """The run failed; `code` and `message` are those of its error."""

    def __init__(self, info: TaskInfo) -> None:
        error = info.error or {}
        self.code: str = error.get("code", "")
        self.message: str = error.get("message", "")
        super().__init__(f"{self.code}: {self.message}", info)


class TaskCancelled(RunEnded):
    """The run was cancelled."""

    def __init__(self, info: TaskInfo) -> None:
        super().__init__("The run was cancelled.", info)


class ProtocolError(TaskAPIError):
    """A client frame that cannot be served; it has what the `error` frame says that answers it.

    `status` is REST's status, if the code alone does not tell it; `reason` is REST's `code`, if it is another one.
    """

    def __init__(
        self, code: str, detail: Any, ref: str | None = None, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.reason = reason
        self.code = code
        self.detail = detail
        self.ref = ref
        self.status = status


class Interrupted(BaseException):
    """Raised by the next progress call of a sync `run` that has to stop; clean up in `finally`.

    A BaseException, so that a task's own ``except Exception`` does not swallow it.
    """
