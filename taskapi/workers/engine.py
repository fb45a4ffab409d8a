"""One worker process: takes jobs from the queues and executes them, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

from django.db import connections

from taskapi import runs
from taskapi.backends.arq import HEALTH_INTERVAL, Unavailable, WorkerQueue
from taskapi.database import keep_connections
from taskapi.execution import Executor, Interruption

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 10  # runs at once in a process
DEFAULT_GRACE = 25.0  # seconds for running tasks after SIGTERM: under the 30 s after which platforms kill
LAST_WORDS = 5.0  # seconds for interrupted tasks to clean up
POLL_INTERVAL = 0.5  # seconds for which a worker waits for a job, and then between two looks at deferred ones
BURST_WAIT = 0.01  # seconds: a burst ends when nothing is due, so it does not wait
SWEEP_INTERVAL = 5.0  # seconds between two sweeps
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two tries while Redis is away; doubling


def log_to_terminal() -> None:
    """Say what the worker does, in a project whose LOGGING says nothing of it."""
    package = logging.getLogger("taskapi")
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


class Worker:
    """Executes the runs of `queues`, at most `concurrency` at once.

    `burst`: end when nothing is due. `grace`: seconds that running tasks get after `stop()`.
    """

    def __init__(
        self,
        queues: Sequence[str] = ("default",),
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        burst: bool = False,
        grace: float = DEFAULT_GRACE,
    ) -> None:
        self.queues = list(queues)
        self.concurrency = concurrency
        self.burst = burst
        self.grace = grace
        self._running: set[asyncio.Task[None]] = set()
        self._done = 0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until nothing is due where `burst` is set."""
        asyncio.run(self.main())

    async def main(self) -> None:
        """As `run`, on the running loop. Ends the process where a task's thread does not end."""
        self._stopping = asyncio.Event()
        self._executor = Executor(self.concurrency)
        self._queue = WorkerQueue(self.queues)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        chores = [loop.create_task(chore()) for chore in (self._promote, self._sweep, self._record_health)]
        logger.info("Worker %d takes runs from: %s.", os.getpid(), ", ".join(self.queues))
        try:
            await self._work()
        finally:
            for chore in chores:
                chore.cancel()
            ended = await self._shut_down()
            logger.info("Worker %d ended; it executed %d runs.", os.getpid(), self._done)
            if not ended:
                # Its run was handed back. Python would wait for the thread for ever.
                logging.shutdown()
                os._exit(0)

    def stop(self) -> None:
        """Take no new runs; the second time, give running ones no more time."""
        if self._stopping.is_set():
            self.grace = 0
            self._interrupt_all()
        self._stopping.set()

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                going_on = await self._take_a_job()
            except Unavailable as error:
                logger.warning("Redis is not there (%r); next try in %.1f s.", error, pause)
                await self._until_stopped(asyncio.sleep(pause))
                pause = min(2 * pause, LAST_PAUSE)
                continue
            pause = FIRST_PAUSE
            if not going_on:
                return

    async def _take_a_job(self) -> bool:
        """Start the next run, or wait for one; False when a burst is over."""
        if len(self._running) >= self.concurrency:
            await self._until_stopped(asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED))
            return True
        if self.burst:
            await self._queue.promote()
        # Not cut short by `stop()`: a job that Redis has just handed over would be lost until the next sweep.
        uuid = await self._queue.take(BURST_WAIT if self.burst else POLL_INTERVAL)
        if uuid is not None:
            self._start(uuid)
        elif self.burst and self._running:
            await self._until_stopped(asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED))
        elif self.burst:
            return False
        return True

    def _start(self, uuid: UUID) -> None:
        task = asyncio.get_running_loop().create_task(self._executor.execute(uuid))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._done += 1
        if not task.cancelled() and task.exception() is not None:
            logger.error("A run could not be executed.", exc_info=task.exception())

    async def _until_stopped(self, awaitable: Coroutine[Any, Any, Any]) -> None:
        """Await it, or until `stop()`, whichever comes first."""
        waiting = asyncio.ensure_future(awaitable)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not waiting.done():
                waiting.cancel()
        if waiting.done() and not waiting.cancelled():
            waiting.result()

    async def _shut_down(self) -> bool:
        """Let running tasks finish within the grace time, and hand back those that do not."""
        if self._running:
            logger.info("Waiting up to %g s for %d runs to finish.", self.grace, len(self._running))
            await asyncio.wait(self._running, timeout=self.grace)
        self._interrupt_all()
        if self._running:
            await asyncio.wait(self._running, timeout=LAST_WORDS)
        for attempt in list(self._executor.attempts.values()):
            await attempt.abandon()
        await self._queue.close()
        return await self._executor.close()

    def _interrupt_all(self) -> None:
        for attempt in list(self._executor.attempts.values()):
            attempt.interrupt(Interruption.HANDED_BACK)

    # Chores

    async def _promote(self) -> None:
        while True:
            try:
                next_due = await self._queue.promote()
            except Unavailable:  # the main loop says so
                next_due = None
            await asyncio.sleep(POLL_INTERVAL if next_due is None else min(POLL_INTERVAL, next_due))

    async def _sweep(self) -> None:
        after = 0
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                after = await asyncio.to_thread(self._sweep_once, after)
            except Exception as error:  # noqa: BLE001 - Redis or the database is away; the next sweep is in a few seconds
                logger.warning("A sweep failed: %r", error)

    def _sweep_once(self, after: int) -> int:
        keep_connections()
        try:
            return runs.sweep(self.queues, after)
        finally:
            connections.close_all()

    async def _record_health(self) -> None:
        while True:
            try:
                await self._queue.record_health(f"done={self._done} running={len(self._running)}")
            except Unavailable as error:
                logger.debug("No health record: %s", error)
            await asyncio.sleep(HEALTH_INTERVAL)
