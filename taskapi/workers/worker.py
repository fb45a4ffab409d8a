"""A worker process: it takes jobs from its queues and has a host execute them, on one event loop.

Signals, the grace time, a burst and the end of the process are here. How a run is executed is the host's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from taskapi.backends import QueueUnavailable, get_backend
from taskapi.backends.base import HEALTH_INTERVAL
from taskapi.exceptions import UnknownRun
from taskapi.workers.chores import Chores
from taskapi.workers.contexts import run_of
from taskapi.workers.host import DEFAULT_CONCURRENCY, Host
from taskapi.workers.processes import end_in_a_moment, free_forked_children, leave

logger = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0002  # seconds after which a task that computes lets others have the interpreter; Python has 0.005
DEFAULT_GRACE = 25.0  # seconds for running tasks after SIGTERM: under the 30 s after which platforms kill
QUEUE_CLOSE_LIMIT = 2.0  # seconds for the queue to close
POLL_INTERVAL = 0.5  # seconds for which a worker waits for a job, and then between two looks at deferred ones
BURST_POLL = 0.01  # the same in a burst, which ends when nothing is due
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two tries while the queue is away; doubling


class Worker:
    """Executes the runs of `queues`, at most `concurrency` at once.

    `burst`: end when nothing is due. `grace`: seconds that running tasks get after `stop()`. `identity`: the name
    under which it holds its runs; a random one by default.
    """

    def __init__(
        self,
        queues: Sequence[str] = ("default",),
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        burst: bool = False,
        grace: float = DEFAULT_GRACE,
        identity: str | None = None,
    ) -> None:
        self.queues = list(queues)
        self.concurrency = concurrency
        self.burst = burst
        self.grace = grace
        self.identity = identity
        self.failed = False  # it cannot go on, and the log says why
        self._running: set[asyncio.Task[None]] = set()
        self._executed = 0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT or, in a burst, until nothing is due."""
        # What the project has loaded stays. A search for garbage in it would stop all runs for 30 ms, again and again.
        gc.collect()
        gc.freeze()
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            ended = complete(loop, loop.create_task(self.main()))
            if self.failed:
                leave(1)
            if not ended:
                leave()
            end_in_a_moment(loop.is_closed)

    async def main(self) -> bool:
        """As `run`, on the running loop; False if a task may have left a thread behind."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        free_forked_children()
        self._stopping, self._hurrying = asyncio.Event(), asyncio.Event()
        self._handle_signals()
        self._queue = get_backend().worker_queue(self.queues)
        self._host = Host(
            queues=self.queues, concurrency=self.concurrency, identity=self.identity, on_failure=self._fail
        )
        self._host.start()
        chores = Chores(self._fail)
        chores.begin(self._promote, self._record_health)
        logger.info("Worker %d takes runs from: %s.", os.getpid(), ", ".join(self.queues))
        try:
            await self._work()
        finally:
            chores.stop()
            ended = await self._shut_down()
            logger.info("Worker %d ended; it executed %d runs.", os.getpid(), self._executed)
        return ended

    def stop(self) -> None:
        """Take no new runs, and end when the running ones have finished, or after the grace time."""
        self._stopping.set()

    def hurry(self) -> None:
        """End now: running tasks get no more time."""
        self._stopping.set()
        self._hurrying.set()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.hurry)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # else its supervisor passes it on
            loop.add_signal_handler(signal.SIGINT, self._ctrl_c)

    def _ctrl_c(self) -> None:
        if self._stopping.is_set():
            self.hurry()
        else:
            self.stop()

    def _fail(self, why: str) -> None:
        """End this worker, rather than leave it half alive."""
        if not self.failed:
            logger.critical("Worker %d ends, and hands back its runs: %s.", os.getpid(), why)
            self.failed = True
            self.hurry()

    # Jobs

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                going_on = await self._take_a_job()
            except QueueUnavailable as error:
                logger.warning("The queue is unavailable: %s; next try in %.1f s.", error, pause)
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
        # `stop()` does not cut this short: a job that was just taken would be lost until the next sweep.
        uuid = await self._queue.take(BURST_POLL if self.burst else POLL_INTERVAL)
        if uuid is not None:
            self._start(uuid)
            await asyncio.sleep(0)  # it begins before the next job is asked for
        elif self.burst and self._running:
            await self._until_stopped(asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED))
        elif self.burst:
            return False
        return True

    def _start(self, uuid: UUID) -> None:
        task = asyncio.get_running_loop().create_task(self._execute(uuid))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _execute(self, uuid: UUID) -> None:
        try:
            executed = await self._host.execute(uuid)
            self._executed += executed  # not in one line: that would read the counter before it awaits
        except UnknownRun:
            with suppress(QueueUnavailable):  # the sweep of a worker that has the row queues the run again
                await self._queue.give_back(uuid)
        finally:
            self._queue.done(uuid)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
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
        """Let running tasks finish within the grace time; the host hands back the others. False as of `main`."""
        if self._running:
            logger.info("Waiting up to %g s for %d runs to finish.", self.grace, len(self._running))
            hurrying = asyncio.ensure_future(self._hurrying.wait())
            finishing = asyncio.ensure_future(asyncio.wait(self._running))
            await asyncio.wait({hurrying, finishing}, timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
        ended = await self._host.stop()
        try:
            async with asyncio.timeout(QUEUE_CLOSE_LIMIT):
                if ended and self._running:  # one is giving back its job
                    await asyncio.wait(self._running)
                await self._queue.close()
        except TimeoutError:
            logger.warning("The queue gave no answer within %g s; its connection is left open.", QUEUE_CLOSE_LIMIT)
            return False
        return ended

    # Chores

    async def _promote(self) -> None:
        while True:
            try:
                next_due = await self._queue.promote()
            except QueueUnavailable:  # `_work` logs it
                next_due = None
            await asyncio.sleep(POLL_INTERVAL if next_due is None else min(POLL_INTERVAL, next_due))

    async def _record_health(self) -> None:
        while True:
            try:
                await self._queue.record_health(f"done={self._executed} running={len(self._running)}")
            except QueueUnavailable as error:
                logger.debug("The queue is unavailable: %s; the worker's health is not recorded.", error)
            await asyncio.sleep(HEALTH_INTERVAL)


def complete(loop: asyncio.AbstractEventLoop, working: asyncio.Task[bool]) -> bool:
    """Run the loop until the worker has ended, whatever a callback of a task raises."""
    while True:
        try:
            return loop.run_until_complete(working)
        except (SystemExit, KeyboardInterrupt) as error:
            if working.done() or _is_ctrl_c():
                raise
            run = run_of(error)
            logger.error("The worker goes on although a callback raised %r (in run %s).", error, run and run.run)
            if run is not None:
                run.exited(error)


def _is_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt here comes from the terminal: Python raises that one in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
