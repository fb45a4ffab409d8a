"""A task's own code in one attempt: how it is called, how it is stopped, and what becomes of it.

Nothing here reads or writes the run's row, so it is the same in a worker and in a process of its own
(taskapi.isolation).
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from taskapi import runs
from taskapi.database import check_connections, in_database
from taskapi.exceptions import Interrupted, TaskError
from taskapi.models import TaskInfo
from taskapi.params import dump_outputs, parse_inputs
from taskapi.progress import Speaker
from taskapi.runs import Outcome
from taskapi.states import ErrorCode, Status
from taskapi.tasks import Task

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Interruption(Enum):
    """Why a running attempt was told to stop."""

    CANCELLED = "cancelled"  # somebody asked for it
    TIMEOUT = "timeout"  # the task's own
    HANDED_BACK = "handed back"  # its worker stops
    LOST = "lost"  # its lease is, so that another worker has the run


class Work:
    """The work of one attempt. What the task says goes to `speaker`."""

    def __init__(self, info: TaskInfo, speaker: Speaker) -> None:
        self.info = info
        self.speaker = speaker
        self.interruption: Interruption | None = None
        self._stop: Callable[[], object] = speaker.interrupt
        self._retry_on: tuple[type[Exception], ...] = ()
        self._retry_delay = timedelta()

    def make(self, definition: type[Task]) -> Task:
        """The instance whose `run` is called."""
        self._retry_on = definition.retry_on
        self._retry_delay = timedelta(seconds=definition.retry_delay) * 2 ** (self.info.attempt - 1)
        task = definition()
        task.info = copy(self.info)  # the attempt goes by its own, whatever the task does to this one
        task._speaker = self.speaker  # noqa: SLF001 - hidden from the subclasses that users write, not from here
        return task

    def interrupt(self, why: Interruption) -> None:
        """Stop the task: an async one is cancelled, a sync one stops at its next progress call."""
        if self.interruption is None:
            self.interruption = why
            self._stop()

    def on_interrupt(self, stop: Callable[[], object]) -> None:
        """How the task is stopped from now on."""
        self._stop = stop
        if self.interruption is not None:
            stop()

    def ended(self) -> None:
        """There is nothing to be stopped any more."""
        self._stop = lambda: None

    # How an attempt ends. BaseException: a task's own code ends here, whatever it raises (`sys.exit()` too).

    def run(self, task: Task) -> Outcome:
        """Call a sync `run`, in a thread where it may take its time."""
        try:
            return _succeed(task, task.run(**_parse(task)))
        except BaseException as error:  # noqa: BLE001
            return self.fail(error)

    async def arun(self, task: Task, threads: ThreadPoolExecutor | None = None) -> Outcome:
        """Await an async `run`. Conversions go to a thread: a long list takes a while."""
        loop = asyncio.get_running_loop()

        async def work() -> Outcome:
            # the thread of the async ORM is nobody's else to look after, and its connection may be broken
            await in_database(check_connections)
            try:
                inputs = await loop.run_in_executor(threads, with_connections, partial(_parse, task))
                result = await task.run(**inputs)
                return await loop.run_in_executor(threads, with_connections, partial(_succeed, task, result))
            except BaseException as error:  # noqa: BLE001
                return self.fail(error)

        # A task of its own, which `interrupt` cancels.
        running = loop.create_task(work())
        self.on_interrupt(lambda: loop.call_soon_threadsafe(running.cancel))
        await asyncio.wait({running})
        self.ended()
        # cancelled: before it began, so that nothing inside it could catch that
        return self.fail(asyncio.CancelledError()) if running.cancelled() else running.result()

    def fail(self, error: BaseException) -> Outcome:
        """The outcome of a `run` that raised."""
        if isinstance(error, (Interrupted, asyncio.CancelledError)):
            match self.interruption:
                case Interruption.CANCELLED:
                    return runs.CANCELLED
                case Interruption.TIMEOUT:
                    return Outcome.failed(ErrorCode.TIMEOUT, "The task took longer than it may.")
                case Interruption.HANDED_BACK | Interruption.LOST:
                    return Outcome(Status.PENDING)
        if isinstance(error, self._retry_on) and self.info.attempt < self.info.max_attempts:
            logger.warning("Task %s will be tried again in run %s.", self.info.task, self.info.uuid, exc_info=error)
            return Outcome(Status.PENDING, run_at=timezone.now() + self._retry_delay)
        if isinstance(error, TaskError):
            return Outcome.failed(ErrorCode.TASK_ERROR, str(error))
        return self.stumble(error)

    def stumble(self, error: BaseException) -> Outcome:
        """The outcome after an error that nobody foresaw: its text is for staff, unless DEBUG is on."""
        logger.error("Task %s failed in run %s.", self.info.task, self.info.uuid, exc_info=error)
        # these, unlike str(error), survive an exception that cannot be printed
        text = "".join(traceback.format_exception_only(error)).strip() if settings.DEBUG else "The task failed."
        return Outcome.failed(ErrorCode.EXCEPTION, text, "".join(traceback.format_exception(error)))


def with_connections(function: Callable[[], T]) -> T:
    """Call `function` as Django calls a view: stale connections are closed before and after."""
    close_old_connections()
    try:
        return function()
    except StopIteration as error:  # which a future does not take
        raise RuntimeError(f"It raised {error!r}.") from error
    finally:
        close_old_connections()


def _parse(task: Task) -> dict[str, Any]:
    try:
        return parse_inputs(task.inputs, task.info.inputs)
    except ValidationError as error:
        raise TaskError(f"The inputs no longer fit the task: {_sentence(error)}") from None


def _succeed(task: Task, result: Any) -> Outcome:
    """The outcome of a `run` that returned: its outputs as JSON, where they are what the task declares."""
    spec = task.outputs
    if not spec:
        return Outcome(Status.SUCCEEDED, {})
    if len(spec) == 1 and not (isinstance(result, Mapping) and result.keys() == spec.keys()):
        result = dict.fromkeys(spec, result)
    try:
        return Outcome(Status.SUCCEEDED, dump_outputs(spec, result))
    except ValidationError as error:
        logger.error("Task %s returned invalid outputs: %s", task.name, _sentence(error))
        return Outcome.failed(ErrorCode.INVALID_OUTPUTS, f"The task returned invalid outputs. {_sentence(error)}")


def _sentence(error: ValidationError) -> str:
    """The details of a ValidationError as text: ``name: sentence sentence; name: …``."""
    if not isinstance(error.detail, dict):
        return " ".join(map(str, error.detail))
    return "; ".join(f"{name}: {' '.join(map(str, details))}" for name, details in error.detail.items())
