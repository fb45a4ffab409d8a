"""What a task's own code runs in: a context and threads of its own.

A loop has one default executor, and asgiref has one thread for the whole process. asyncio looks up host names in the
first; tasks use both by `asyncio.to_thread`, `sync_to_async` and the async ORM. So a worker would wait for its tasks,
and they for one another. Here each run has its own of both, made when it is first used.
"""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections

from taskapi.store.database import forget_queries, tidy_connections
from taskapi.tasks.current import current_run

P = ParamSpec("P")
T = TypeVar("T")

WORKERS_THREADS = 32  # at most, for calls of the loop that belong to no run: mostly it looks up host names
LONG_WAIT = 1.0  # seconds for which a run waits for another before the executor asks whether that can ever begin


def current() -> RunContext | None:
    """The run whose code calls this; None outside of a run."""
    run: Any = current_run.get()  # only RunContext sets it
    return run  # type: ignore[no-any-return]


class RunContext:
    """Where the code of one attempt runs: a copy of the context `pristine`, and threads of its own."""

    def __init__(self, run: object, pristine: contextvars.Context) -> None:
        self.run = run  # its uuid, for the log
        self.context = pristine.copy()
        self.on_exit: Callable[[BaseException], object] = lambda error: None  # see `exited`
        self.on_wait: Callable[[], object] = lambda: None  # called if it waits long for another run
        self._awaited: list[tuple[Any, float]] = []  # the runs whose results it waits for, and since when
        self._sensitive = ThreadSensitiveContext()
        self._threads: ThreadPoolExecutor | None = None
        self.context.run(self._enter)

    def _enter(self) -> None:
        current_run.set(self)
        SyncToAsync.thread_sensitive_context.set(self._sensitive)
        decimal.setcontext(decimal.getcontext().copy())  # a copied context still shares its decimal context

    @property
    def threads(self) -> ThreadPoolExecutor:
        """For `asyncio.to_thread` and the like; as many as asyncio itself would have."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(thread_name_prefix="taskapi-task-own")
        return self._threads

    def end(self) -> None:
        """Let go of the threads, without waiting for what still runs in them.

        What the task has left behind on the loop may go on, and gets new threads.
        """
        del self.context  # it refers to this object: a cycle, which may hold much memory
        self._threads = None  # they end when their executor is gone and nothing is left to do
        sensitive = SyncToAsync.context_to_thread_executor.pop(self._sensitive, None)
        if sensitive is not None:
            with suppress(RuntimeError):  # the interpreter ends
                sensitive.submit(self._close_connections)

    def _close_connections(self) -> None:
        tidy_connections(self.run)
        connections.close_all()

    # What the code of the run says to its executor

    def exited(self, error: BaseException) -> None:
        """End the run: something that it has started has raised SystemExit or KeyboardInterrupt."""
        self.on_exit(error)

    @contextmanager
    def waiting_for(self, info: Any) -> Iterator[Callable[[], object]]:
        entry = (info, time.monotonic())
        self._awaited.append(entry)
        try:
            yield lambda: self.waits_for and self.on_wait()
        finally:
            self._awaited.remove(entry)

    @property
    def waits_for(self) -> list[Any]:
        """The runs for whose results it has waited for long."""
        return [info for info, since in list(self._awaited) if time.monotonic() - since >= LONG_WAIT]


# The event loop


def prepare(loop: asyncio.AbstractEventLoop) -> None:
    """Make the loop safe for the code of runs: it gets a task factory and a default executor, and keeps them."""
    usual: Any = loop.get_task_factory()
    if not isinstance(usual, _TaskFactory):
        loop.set_task_factory(_TaskFactory(usual))
        loop.set_default_executor(_DefaultExecutor())


def run_of(error: BaseException) -> RunContext | None:
    """The run whose callback raised the error that stopped the loop; None if that cannot be found."""
    traceback = error.__traceback__
    while traceback is not None:
        handle = traceback.tb_frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            run: RunContext | None = handle._context.get(current_run)  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else knows it
            return run
        traceback = traceback.tb_next
    return None


class _DefaultExecutor(ThreadPoolExecutor):
    """The default executor of the loop: calls from the code of a run go to the run's own threads."""

    def __init__(self) -> None:
        super().__init__(WORKERS_THREADS, thread_name_prefix="taskapi-worker")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        run = current()
        if run is None:
            return super().submit(_call, forget_queries, fn, *args, **kwargs)
        return run.threads.submit(_call, lambda: tidy_connections(run.run), fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Never wait: on Python 3.11, asyncio would wait for ever for a host name that does not resolve."""
        super().shutdown(wait=False, cancel_futures=True)


def _call(afterwards: Callable[[], object], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return fn(*args, **kwargs)
    finally:
        afterwards()


class _TaskFactory:
    """Makes tasks of asyncio; a task that a run starts cannot end the loop.

    asyncio raises SystemExit and KeyboardInterrupt of any task out of the loop, and so ends the worker.
    """

    def __init__(self, usual: Callable[..., Any] | None) -> None:
        self._usual = usual

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,  # a coroutine; typeshed also allows generators
        **options: Any,
    ) -> asyncio.Future[Any]:
        context = options.get("context")
        run = current() if context is None else context.get(current_run)
        guarded: Any = coro if run is None else _Guarded(coro, run)
        if self._usual is not None:
            made: asyncio.Future[Any] = self._usual(loop, guarded, **options)
            return made
        return asyncio.Task(guarded, loop=loop, **options)


class ChildExited(BaseException):
    """Raised by a task of asyncio in place of SystemExit or KeyboardInterrupt."""


class _Guarded(Coroutine[Any, Any, T]):
    """A coroutine that raises ChildExited in place of SystemExit and KeyboardInterrupt.

    Not an `async def` around it: if that were cancelled before it begins, the inner one would never be awaited.
    """

    def __init__(self, coro: Coroutine[Any, Any, T], run: RunContext) -> None:
        self._coro = coro
        self._run = run

    def send(self, value: Any) -> Any:
        try:
            return self._coro.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._exit(error) from error

    def throw(self, *thrown: Any) -> Any:
        try:
            return self._coro.throw(*thrown)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._exit(error) from error

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # debuggers, and asyncio's `repr`, read attributes of a coroutine

    def _exit(self, error: BaseException) -> BaseException:
        self._run.exited(error)
        return ChildExited(f"A task of asyncio raised {error!r}, which ends the run.")
