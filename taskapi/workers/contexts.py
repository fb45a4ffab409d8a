"""What a task's own code runs in: a context of its own, and threads that are nobody else's.

A worker's loop has one default executor, and asgiref one thread for the whole process. asyncio looks up hosts in the
first, and users call `asyncio.to_thread`, `sync_to_async` and the async ORM: so a worker would wait for its tasks, and
they for one another. Here each run has what it needs of both, made when it is first used.
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

WORKERS_THREADS = 32  # at most, for what a worker does in threads of its loop: most of it looks up hosts
LONG_WAIT = 1.0  # seconds for which a run waits for another before anybody asks whether it can ever begin


def current() -> RunContext | None:
    """The run whose code calls this; None outside of a worker."""
    run: Any = current_run.get()  # only RunContext sets it
    return run  # type: ignore[no-any-return]


class RunContext:
    """Where one attempt's code runs: a copy of `pristine`, which no other run has changed, and threads of its own."""

    def __init__(self, run: object, pristine: contextvars.Context) -> None:
        self.run = run  # its uuid, for the log
        self.context = pristine.copy()
        self.on_exit: Callable[[BaseException], object] = lambda error: None  # see `exited`
        self.on_wait: Callable[[], object] = lambda: None  # called while it waits long for another run
        self._awaited: list[tuple[Any, float]] = []  # runs whose result it waits for, and since when
        self._sensitive = ThreadSensitiveContext()
        self._threads: ThreadPoolExecutor | None = None
        self.context.run(self._enter)

    def _enter(self) -> None:
        current_run.set(self)
        SyncToAsync.thread_sensitive_context.set(self._sensitive)
        decimal.setcontext(decimal.getcontext().copy())  # a copy of the context would still share this one

    @property
    def threads(self) -> ThreadPoolExecutor:
        """For `asyncio.to_thread` and its like, as many as asyncio itself would have."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(thread_name_prefix="taskapi-task-own")
        return self._threads

    def end(self) -> None:
        """Let go of the threads, without waiting for what still runs in them.

        What the task has left behind on the loop may go on: it is given new ones.
        """
        del self.context  # which knows this: a circle, and it may hold much
        self._threads = None  # they end when nothing is left to do for an executor that is gone
        sensitive = SyncToAsync.context_to_thread_executor.pop(self._sensitive, None)
        if sensitive is not None:
            with suppress(RuntimeError):  # the interpreter ends
                sensitive.submit(self._close_connections)

    def _close_connections(self) -> None:
        tidy_connections(self.run)
        connections.close_all()

    # What the code of the run says to whoever executes it

    def exited(self, error: BaseException) -> None:
        """Something that the run has started has raised what ends a process: it ends the run."""
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
        """The runs for whose result it has waited for long."""
        return [info for info, since in list(self._awaited) if time.monotonic() - since >= LONG_WAIT]


# The worker's loop


def prepare(loop: asyncio.AbstractEventLoop) -> None:
    """Make the loop one that runs of tasks share with the worker's own duties."""
    usual: Any = loop.get_task_factory()
    if not isinstance(usual, _TaskFactory):
        loop.set_task_factory(_TaskFactory(usual))
        loop.set_default_executor(_DefaultExecutor())


def run_of(error: BaseException) -> RunContext | None:
    """The run whose callback has raised what ended its loop; None where it cannot be told."""
    traceback = error.__traceback__
    while traceback is not None:
        handle = traceback.tb_frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            run: RunContext | None = handle._context.get(current_run)  # type: ignore[attr-defined]  # noqa: SLF001 - nobody else knows
            return run
        traceback = traceback.tb_next
    return None


class _DefaultExecutor(ThreadPoolExecutor):
    """The default executor of a worker's loop: what a run asks for goes to the run's own threads."""

    def __init__(self) -> None:
        super().__init__(WORKERS_THREADS, thread_name_prefix="taskapi-worker")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        run = current()
        if run is None:
            return super().submit(_call, forget_queries, fn, *args, **kwargs)
        return run.threads.submit(_call, lambda: tidy_connections(run.run), fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Never wait: asyncio would, for ever on Python 3.11, for a host name that nobody resolves."""
        super().shutdown(wait=False, cancel_futures=True)


def _call(afterwards: Callable[[], object], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return fn(*args, **kwargs)
    finally:
        afterwards()


class _TaskFactory:
    """Makes tasks of asyncio; one that a run starts cannot end the loop.

    asyncio passes SystemExit and KeyboardInterrupt of any task on to whoever runs the loop, which is the worker.
    """

    def __init__(self, usual: Callable[..., Any] | None) -> None:
        self._usual = usual

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,  # a coroutine; typeshed still knows generators that are one
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
    """What a task of asyncio raises in place of SystemExit or KeyboardInterrupt."""


class _Guarded(Coroutine[Any, Any, T]):
    """A coroutine as it is, save for what it may not raise.

    No `async def` around it: one that is cancelled before it begins would leave the inner one un-awaited.
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
        return getattr(self._coro, name)  # what debuggers, and asyncio's `repr`, ask a coroutine

    def _exit(self, error: BaseException) -> BaseException:
        self._run.exited(error)
        return ChildExited(f"A task of asyncio raised {error!r}, which ends the run.")
