"""Executes runs in the server process: the engine of LocalBackend.

A thread of its own has an event loop of its own, with a host on it (taskapi.workers.host): under WSGI the server has no
loop, and the loop of daphne serves all sockets. What waits in this process is in `taskapi.backends.local.jobs`. What
waits in rows alone is found by the host's sweep, and at the start: runs of before, of another process, of a shell.

The server's signals are the server's. When the interpreter ends, as after SIGTERM, or for a reload, what runs is handed
back. If the process is killed, its runs are taken up when their leases have run out.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from concurrent.futures import thread as pools
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.apps import apps
from django.core.signals import setting_changed
from django.db import connections

from taskapi.backends import get_backend
from taskapi.backends.local import jobs
from taskapi.exceptions import UnknownRun
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks
from taskapi.workers import upkeep
from taskapi.workers.host import DEFAULT_CONCURRENCY, HAND_BACK_LIMIT, Host
from taskapi.workers.worker import complete

logger = logging.getLogger(__name__)

CONCURRENCY = DEFAULT_CONCURRENCY  # runs at once in a process
CLEANUP_TIME = 3.0  # seconds that interrupted tasks get: a reload waits as long. More than isolation.parent.KILL_AFTER
STOP_LIMIT = CLEANUP_TIME + HAND_BACK_LIMIT + 1  # seconds for all of it: then the server ends, whatever goes on here
LOOK_INTERVAL = 1.0  # seconds between two looks at runs that are not due yet: the clock may be set meanwhile
RETRY_PAUSE = 2.0  # seconds between two tries while the database is away, or has no tables yet; and after a failure


class LocalWorker:
    """Takes what waits in this process, and has a host execute it, on the running event loop."""

    def __init__(self) -> None:
        self._stopping = False
        self._failed = False
        self._running: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Hand back what runs, and end; from any thread."""
        self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._news.set)

    async def main(self) -> bool:
        """Execute runs until `stop`, or until the host fails; False if a task may have left a thread behind."""
        loop = asyncio.get_running_loop()
        self._news = asyncio.Event()  # something is due, or has ended, or this is to end
        self._loop = loop
        jobs.open(partial(loop.call_soon_threadsafe, self._news.set))
        try:
            return await self._execute_runs(await self._take_up())
        finally:
            jobs.close()

    async def _take_up(self) -> list[str]:
        """Let the runs wait here that have waited for a server, once the database answers; the names of all queues."""
        told = False
        while not self._stopping:
            self._news.clear()
            try:
                return await asyncio.to_thread(_requeue_all)
            except Exception as error:  # noqa: BLE001 - each database has errors of its own; so has a task's module
                if not told:
                    logger.warning(
                        "No run is executed yet, because the runs that wait could not be read: %r. This is tried again "
                        "every %g s. If a table is missing: `python manage.py migrate` creates it.",
                        error,
                        RETRY_PAUSE,
                    )
                told = True
                await self._wait(RETRY_PAUSE)
        return []

    async def _execute_runs(self, queues: list[str]) -> bool:
        host = Host(queues=queues, concurrency=CONCURRENCY, on_failure=self._fail)
        host.start()
        try:
            while not self._stopping and not self._failed:
                self._news.clear()
                self._begin(host)
                due = None if self._is_full() else jobs.next_due()
                await self._wait(None if due is None else min(due, LOOK_INTERVAL))
        finally:
            if self._running:
                logger.info("Runs that are handed back: %d. They go on when the server is back.", len(self._running))
            ended = await host.stop(CLEANUP_TIME)
        return ended

    async def _wait(self, seconds: float | None) -> None:
        """Wait for news, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _is_full(self) -> bool:
        return len(self._running) >= CONCURRENCY

    def _begin(self, host: Host) -> None:
        """Begin what is due, as far as there are slots."""
        while not self._is_full() and (uuid := jobs.take()) is not None:
            executing = asyncio.get_running_loop().create_task(_execute(host, uuid))
            self._running.add(executing)
            executing.add_done_callback(self._ended)

    def _ended(self, executing: asyncio.Task[None]) -> None:
        self._running.discard(executing)
        self._news.set()
        if not executing.cancelled() and executing.exception() is not None:
            logger.error("A run could not be executed.", exc_info=executing.exception())

    def _fail(self, why: str) -> None:
        logger.critical("The host of process %d is replaced by a new one: %s.", os.getpid(), why)
        self._failed = True
        self._news.set()


async def _execute(host: Host, uuid: UUID) -> None:
    try:
        await host.execute(uuid)
    except UnknownRun:
        logger.debug("Run %s was deleted before it could begin.", uuid)
    finally:
        jobs.done(uuid)


def _requeue_all() -> list[str]:
    queues = sorted({Task.queue, *(task.queue for task in tasks().values())})
    try:
        after = upkeep.requeue(queues, age=timedelta(0))
        while after:
            after = upkeep.requeue(queues, after, age=timedelta(0))
    finally:
        connections.close_all()
    return queues


class LocalThread(threading.Thread):
    """The thread in which a LocalWorker lives; one that fails is replaced.

    A daemon, and so are the threads that its loop starts: Python waits for no daemon when it ends.
    """

    def __init__(self) -> None:
        super().__init__(name="taskapi-local", daemon=True)
        self._stopping = threading.Event()
        self._worker = LocalWorker()

    def start(self) -> None:
        jobs.open(lambda: None)  # what is started before there is a loop to wake waits, too
        super().start()

    def run(self) -> None:
        apps.ready_event.wait()
        logger.info(
            "Process %d executes runs, at most %d at once (LocalBackend). One server process is enough for this "
            "backend: in several, each run is still executed once, but a follower in another process hears of it only "
            "every few seconds.",
            os.getpid(),
            CONCURRENCY,
        )
        try:
            while not self._stopping.is_set():
                self._work()
                self._stopping.wait(RETRY_PAUSE)
        finally:
            jobs.close()

    def stop(self) -> None:
        self._stopping.set()
        self._worker.stop()

    def _work(self) -> None:
        worker = self._worker = LocalWorker()
        if self._stopping.is_set():  # before there was this worker to stop
            return
        try:
            with asyncio.Runner() as runner:
                loop = runner.get_loop()
                complete(loop, loop.create_task(worker.main()))
        except Exception:  # whatever it was, the server goes on, and runs have to
            logger.exception("Runs are not executed in this process; it begins again in %g s.", RETRY_PAUSE)


_lock = threading.Lock()
_thread: LocalThread | None = None
_hooked = False  # `_interpreter_ends` will be called
_ending = False


def serve() -> None:
    """Execute runs in this process from now on, if it does not already."""
    global _thread  # noqa: PLW0603 - one for the process
    if _ending or (_thread is not None and _thread.is_alive()):
        return
    with _lock:
        if _thread is not None and _thread.is_alive():
            return
        try:
            _hook()
            _thread = LocalThread()
            _thread.start()
        except RuntimeError as error:
            logger.debug("No run is executed in this process, because it ends: %r.", error)


def stop() -> None:
    """Hand back what runs, and execute nothing in this process until `serve` is called again."""
    global _thread  # noqa: PLW0603 - as above
    with _lock:
        if _thread is None:
            return
        _thread.stop()
        _thread.join(STOP_LIMIT)
        if _thread.is_alive():
            logger.warning("The runs of process %d could not all be handed back within %g s.", os.getpid(), STOP_LIMIT)
        _thread = None


def _hook() -> None:
    """Have `_interpreter_ends` called before Python waits for threads.

    `atexit` would be too late: Python joins the threads of all executors before that, so that a reload would wait for
    each task to end; and then no executor takes calls any more, so that nothing could be written.
    """
    global _hooked  # noqa: PLW0603 - as above
    if not _hooked:
        register = getattr(threading, "_register_atexit", atexit.register)  # private; concurrent.futures uses it
        register(_interpreter_ends)
        _hooked = True


def _interpreter_ends() -> None:
    global _ending  # noqa: PLW0603 - as above
    _ending = True
    stop()
    # A thread whose task did not end is not waited for, by concurrent.futures either.
    queues = getattr(pools, "_threads_queues", {})
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("taskapi-"):
            queues.pop(thread, None)


def _setting_changed(*, setting: str, **kwargs: object) -> None:
    """A test uses another backend from now on: this one executes nothing meanwhile."""
    if setting == "TASK_API_BACKEND" and _thread is not None and not _is_used():
        stop()


def _is_used() -> bool:
    try:
        return get_backend().engine == __name__
    except Exception:  # noqa: BLE001 - a test of settings that are wrong
        return False


def _after_fork() -> None:
    """A child process executes nothing until it serves itself: it does not have its parent's thread."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None


setting_changed.connect(_setting_changed)
os.register_at_fork(after_in_child=_after_fork)
