"""A task's own code in one attempt: how it is called, how it is stopped, and which outcome it has.

Nothing here reads or writes the run's row, so it is the same in a worker and in a process for one run
(taskapi.workers.isolation).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from copy import copy
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from taskapi import runs
from taskapi.exceptions import Interrupted, StorageUnavailable, TaskError, UnknownTask
from taskapi.files import RunFiles
from taskapi.models import TaskInfo
from taskapi.params import ConversionContext, dump_outputs, misfit, parse_inputs
from taskapi.protocol.states import ErrorCode, Status
from taskapi.runs import Outcome
from taskapi.store.database import tidy_connections
from taskapi.tasks import Task
from taskapi.tasks.progress import Speaker
from taskapi.tasks.registry import get_task

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Interruption(Enum):
    """Why a running attempt was told to stop."""

    CANCELLED = "cancelled"  # somebody asked for it
    TIMEOUT = "timeout"  # the task's own
    HANDED_BACK = "handed back"  # its worker stops
    LOST = "lost"  # its lease was lost: another worker may have the run


class Unfit(Exception):
    """The recorded inputs do not fit the task as it is declared here: another version has accepted them."""


def refusal(info: TaskInfo) -> Outcome | None:
    """None if this process can execute the run, by the names of its task and inputs.

    Else the outcome with which the run ends if no worker can execute it.
    """
    try:
        task = get_task(info.task)
    except UnknownTask:
        return Outcome.failed(ErrorCode.UNKNOWN_TASK, f"No worker knows a task named {info.task!r}.")
    why = misfit(task.inputs, info.input_names)
    return unfit(why) if why else None


def unfit(why: str) -> Outcome:
    return Outcome.failed(ErrorCode.TASK_ERROR, f"The inputs no longer fit the task: {why}")


class TaskCall:
    """Calls the task of one attempt. What the task says goes to `speaker`."""

    def __init__(self, info: TaskInfo, speaker: Speaker) -> None:
        self.info = info
        self.speaker = speaker
        self.interruption: Interruption | None = None
        self.on_begin: Callable[[], object] = lambda: None  # called when the task's first line is about to run
        self.files = RunFiles(info)
        self._exited: BaseException | None = None  # see `exit`
        self._stop: Callable[[], object] = speaker.interrupt
        self._retry_on: tuple[type[Exception], ...] = ()
        self._retry_delay = timedelta()

    def make(self, definition: type[Task]) -> Task:
        """The instance whose `run` is called."""
        self._retry_on = definition.retry_on
        self._retry_delay = timedelta(seconds=definition.retry_delay) * 2 ** (self.info.tries - 1)
        task = definition()
        task.info = copy(self.info)  # the task may change its copy: the attempt has its own
        task._speaker = self.speaker  # noqa: SLF001 - private for the tasks that users write, not for this package
        return task

    def interrupt(self, why: Interruption) -> None:
        """Stop the task: an async one is cancelled, a sync one stops at its next progress call."""
        if self.interruption is None:
            self.interruption = why
            self._stop()

    def on_interrupt(self, stop: Callable[[], object]) -> None:
        """Stop the task by this function from now on."""
        self._stop = stop
        if self.interruption is not None:
            stop()

    def ended(self) -> None:
        """The task has ended: there is nothing to stop."""
        self._stop = lambda: None

    def exit(self, error: BaseException) -> None:
        """End the task, because something that it has started has raised SystemExit, say."""
        if self._exited is None:
            self._exited = error
            self._stop()

    # BaseException: whatever a task's own code raises ends here (`sys.exit()` too).

    def run(self, task: Task) -> Outcome:
        """Call a sync `run`, in a thread where it may take its time."""
        try:
            inputs = self._parse(task)
            self.on_begin()
            with _forks_end_here():
                result = task.run(**inputs)
            return _unawaited(task, result) or self._succeed(task, result)
        except BaseException as error:  # noqa: BLE001
            return self.fail(error)
        finally:
            self.files.end()

    async def arun(
        self, task: Task, threads: ThreadPoolExecutor | None = None, context: Context | None = None
    ) -> Outcome:
        """Await an async `run`, in the context. Its values are converted in a thread, since a long list takes a while.

        `threads` must do nothing else: asgiref makes its threads remember this loop.
        """
        loop = asyncio.get_running_loop()
        convert = partial(self._convert, threads)

        async def work() -> Outcome:
            try:
                inputs = await convert(self._parse, task)
                self.on_begin()
                with _forks_end_here():
                    result = await task.run(**inputs)
                outcome = _unawaited(task, result)
                return await convert(self._succeed, task, result) if outcome is None else outcome
            except BaseException as error:  # noqa: BLE001
                return self.fail(error)

        # A task of its own, which `interrupt` cancels.
        running = loop.create_task(work(), context=context)
        self.on_interrupt(lambda: loop.call_soon_threadsafe(running.cancel))
        await asyncio.wait({running})
        self.ended()
        if self.files.are_any:
            await convert(self.files.end)
        if self._exited is not None:
            return self.fail(self._exited)
        # it is cancelled only if that happened before it began, so that nothing inside could catch it
        return self.fail(asyncio.CancelledError()) if running.cancelled() else running.result()

    async def _convert(self, threads: ThreadPoolExecutor | None, function: Callable[..., T], *args: Any) -> T:
        call = partial(with_connections, partial(function, *args), self.info.uuid)
        return await sync_to_async(call, thread_sensitive=False, executor=threads)()

    def _context(self, task: Task) -> ConversionContext:
        return ConversionContext(task.info.user, task.info, files=self.files)

    def _parse(self, task: Task) -> dict[str, Any]:
        try:
            return parse_inputs(task.inputs, task.info.inputs, self._context(task))
        except ValidationError as error:
            raise Unfit(_sentence(error)) from None
        except StorageUnavailable as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise TaskError("The inputs of this run are not in the storage any more.") from error

    def _succeed(self, task: Task, result: Any) -> Outcome:
        """The outcome of a `run` that returned: its outputs as JSON, if they are what the task declares."""
        spec = task.outputs
        if not spec:
            if result is not None:
                _warn_of_dropped(task, result)
            return Outcome(Status.SUCCEEDED, {})
        if len(spec) == 1 and not (isinstance(result, Mapping) and result.keys() == spec.keys()):
            result = dict.fromkeys(spec, result)
        try:
            outputs = self.files.offload(dump_outputs(spec, result, self._context(task)))
        except ValidationError as error:
            self.files.abandon()
            logger.error("Task %s returned invalid outputs: %s", task.name, _sentence(error))
            return Outcome.failed(ErrorCode.INVALID_OUTPUTS, f"The task returned invalid outputs. {_sentence(error)}")
        return Outcome(Status.SUCCEEDED, outputs, files=self.files.outputs)

    def fail(self, error: BaseException) -> Outcome:
        """The outcome of a `run` that raised."""
        self.files.abandon()
        if isinstance(error, (Interrupted, asyncio.CancelledError)):
            match self.interruption:
                case Interruption.CANCELLED:
                    return runs.CANCELLED
                case Interruption.TIMEOUT:
                    return Outcome.failed(ErrorCode.TIMEOUT, "The task took longer than it may.")
                case Interruption.HANDED_BACK | Interruption.LOST:  # nothing is written of a lost one
                    return runs.HANDED_BACK
        if isinstance(error, Unfit):
            return Outcome(Status.PENDING, error=unfit(str(error)).error, refused=True)
        if isinstance(error, self._retry_on) and self.info.tries < self.info.max_attempts:
            logger.warning("Task %s will be tried again in run %s.", self.info.task, self.info.uuid, exc_info=error)
            return Outcome(Status.PENDING, run_at=timezone.now() + self._retry_delay)
        told = isinstance(error, TaskError)
        return Outcome.failed(ErrorCode.TASK_ERROR, str(error)) if told else self.stumble(error)

    def stumble(self, error: BaseException) -> Outcome:
        """The outcome after an unexpected error: its text is for staff, unless DEBUG is on."""
        logger.error("Task %s failed in run %s.", self.info.task, self.info.uuid, exc_info=error)
        # unlike str(error), these functions work for an exception that cannot be printed
        text = "".join(traceback.format_exception_only(error)).strip() if settings.DEBUG else "The task failed."
        return Outcome.failed(ErrorCode.EXCEPTION, text, "".join(traceback.format_exception(error)))


@contextmanager
def _forks_end_here() -> Iterator[None]:
    """End a child that `run` has forked by hand and that returns from `run`, as a program would end."""
    process, status = os.getpid(), 1
    try:
        yield
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        if os.getpid() != process:  # the child has only this thread, which would wait for the next run for ever
            os._exit(status)


def with_connections(function: Callable[[], T], run: object = None) -> T:
    """Call `function`, for the run of this uuid, as Django calls a view: stale connections are closed before and after.

    What it has changed on a connection is undone.
    """
    close_old_connections()
    try:
        return function()
    except StopIteration as error:  # a future does not accept it
        raise RuntimeError(f"It raised {error!r}.") from error
    finally:
        tidy_connections(run)


def _unawaited(task: Task, result: Any) -> Outcome | None:
    """The outcome of a `run` that returned an object that would do the work but has not been awaited or iterated."""
    if inspect.iscoroutine(result) and result.cr_frame is not None:
        what = "a coroutine that was not awaited"
        remedy = "Write `async def` for `run` and for each decorator around it, and `await` what they call"
        result.close()
    elif inspect.isgenerator(result) and _is_generator(task, result):
        what = "a generator that was not iterated"
        remedy = "Leave out `yield`, and send messages by `self.add_message()`"
        result.close()
    elif inspect.isasyncgen(result) and result.ag_frame is not None:
        what = "an async generator that was not iterated to its end"
        remedy = "Leave out `yield`, and send messages by `self.add_message()`"
    elif isinstance(result, asyncio.Future) and not result.done():
        what = "a future that was not awaited"
        remedy = "`await` it in `run`"
    elif inspect.isawaitable(result) and not isinstance(result, (asyncio.Future, Coroutine)):
        what = "an awaitable that was not awaited"
        remedy = "Write `async def run`, and `await` it there"
    else:
        return None
    text = f"`run` returned {what}, so its work was not done. {remedy}."
    logger.error("Task %s failed in run %s: %s", task.name, task.info.uuid, text)
    return Outcome.failed(ErrorCode.INVALID_OUTPUTS, f"The task returned invalid outputs. {text}")


def _is_generator(task: Task, result: Any) -> bool:
    """Whether the generator was not begun, and will not be: one that is an output is iterated later."""
    begun = inspect.getgeneratorstate(result) != inspect.GEN_CREATED
    return not begun and (not task.outputs or inspect.isgeneratorfunction(inspect.unwrap(task.run)))


_warned: set[type[Task]] = set()  # tasks whose dropped value was logged


def _warn_of_dropped(task: Task, result: Any) -> None:
    """Log, once for each task, that what `run` returned goes nowhere."""
    if type(task) in _warned:
        return
    _warned.add(type(task))
    logger.warning(
        "The `run` of task %s returned a %s in run %s, but the task has no `outputs`: the value is dropped. "
        "Declare it, as in `outputs = {'result': JSONParameter()}`, or return nothing.",
        task.name,
        type(result).__name__,
        task.info.uuid,
    )


def _sentence(error: ValidationError) -> str:
    """The details of a ValidationError as text: ``name: sentence sentence; name: …``."""
    if not isinstance(error.detail, dict):
        return " ".join(map(str, error.detail))
    return "; ".join(f"{name}: {' '.join(map(str, details))}" for name, details in error.detail.items())
