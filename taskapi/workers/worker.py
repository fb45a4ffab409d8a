"""One worker process: takes jobs from the queues and executes them, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections

from taskapi import events, runs
from taskapi.backends.arq import HEALTH_INTERVAL, Unavailable, WorkerQueue
from taskapi.exceptions import UnknownRun
from taskapi.protocol.states import Execution
from taskapi.workers import upkeep
from taskapi.workers.attempt import Attempt
from taskapi.workers.call import Interruption
from taskapi.workers.contexts import run_of
from taskapi.workers.executor import Executor
from taskapi.workers.leases import LeaseKeeper
from taskapi.workers.processes import end_in_a_moment, free_forked_children, leave
from taskapi.workers.upkeep import Held

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_CONCURRENCY = 10  # runs at once in a process
SWITCH_INTERVAL = 0.0002  # seconds after which a task that computes lets others have the interpreter; Python has 0.005
DEFAULT_GRACE = 25.0  # seconds for running tasks after SIGTERM: under the 30 s after which platforms kill
LAST_WORDS = 5.0  # seconds for interrupted tasks to clean up
POLL_INTERVAL = 0.5  # seconds for which a worker waits for a job, and then between two looks at deferred ones
BURST_WAIT = 0.01  # seconds: a burst ends when nothing is due, so it does not wait
SWEEP_INTERVAL = 2.0  # seconds between two sweeps
WATCH_INTERVAL = 1.0  # seconds between two looks at the thread that renews leases
CHORE_PAUSE = 1.0  # seconds after which a chore that failed begins again
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two tries while Redis is away; doubling


class Worker:
    """Executes the runs of `queues`, at most `concurrency` at once.

    `burst`: end when nothing is due. `grace`: seconds that running tasks get after `stop()`. `identity`: by which the
    runs that it holds are known; its own, where whoever starts it need not know.
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
        self.failed = False  # it cannot go on, and has said why
        self._running: set[asyncio.Task[None]] = set()
        self._done = 0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or until nothing is due where `burst` is set."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            ended = _complete(loop, loop.create_task(self.main()))
            if self.failed:
                leave(1)
            if not ended:
                leave()
            end_in_a_moment(loop.is_closed)

    async def main(self) -> bool:
        """As `run`, on the running loop; False where a task may have left a thread behind."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        free_forked_children()
        self._stopping = asyncio.Event()
        self._executor = Executor(self.concurrency, self.identity)
        self._queue = WorkerQueue(self.queues)
        loop = asyncio.get_running_loop()
        self._hurrying = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.hurry)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # else it is the parent's (taskapi.workers.child)
            loop.add_signal_handler(signal.SIGINT, self._ctrl_c)

        def renewed(executing: set[Execution], held: Held) -> None:  # on the keeper's thread
            loop.call_soon_threadsafe(self._renewed, executing, held)

        self._leases = LeaseKeeper(self._executor.worker, self._executing, renewed)
        self._leases.start()
        self._chores = [
            self._begin(chore)
            for chore in (
                self._promote,
                self._take_back,
                self._requeue,
                self._prune,
                self._listen,
                self._record_health,
                self._watch_leases,
            )
        ]
        logger.info("Worker %d takes runs from: %s.", os.getpid(), ", ".join(self.queues))
        try:
            await self._work()
        finally:
            chores, self._chores = self._chores, []
            for chore in chores:
                chore.cancel()
            try:
                ended = await self._shut_down()
            finally:
                self._leases.stop()
            logger.info("Worker %d ended; it executed %d runs.", os.getpid(), self._done)
        return ended

    def stop(self) -> None:
        """Take no new runs, and end when the running ones have finished, or after the grace time."""
        self._stopping.set()

    def hurry(self) -> None:
        """End now: running tasks get no more time."""
        self._stopping.set()
        self._hurrying.set()

    def _ctrl_c(self) -> None:
        if self._stopping.is_set():
            self.hurry()
        else:
            self.stop()

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
            await asyncio.sleep(0)  # it begins before the next is asked for
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
            executed = await self._executor.execute(uuid)
            self._done += executed  # and not in one: what is added to is read before it is awaited
        except UnknownRun:
            with suppress(*Unavailable):  # the main loop says so; the sweep of a worker that has the row finds it
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
        """Let running tasks finish within the grace time, and hand back those that do not; whether all did."""
        if self._running:
            logger.info("Waiting up to %g s for %d runs to finish.", self.grace, len(self._running))
            hurrying = asyncio.ensure_future(self._hurrying.wait())
            finishing = asyncio.ensure_future(asyncio.wait(self._running))
            await asyncio.wait({hurrying, finishing}, timeout=self.grace, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
        unfinished = bool(self._running)
        self._executor.interrupt_all(Interruption.HANDED_BACK)
        if unfinished:
            await asyncio.wait(self._running, timeout=LAST_WORDS)
        try:
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.gather(*map(self._hand_back, list(self._executor.attempts.values())))
                await self._queue.close()
                await self._executor.close()
        except TimeoutError:
            logger.warning("The database or Redis is away: what could not be handed back is taken up later.")
            return False
        return not unfinished

    async def _hand_back(self, attempt: Attempt) -> None:
        try:
            await attempt.abandon()
        except Exception:  # whatever it is about this one, the others are handed back
            logger.exception(
                "Run %s could not be handed back; it is taken up when its lease is over.", attempt.info.uuid
            )

    # Chores. Each is guarded by itself: what goes wrong in one is no reason to leave another undone.

    def _begin(self, chore: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._keep(chore), name=chore.__name__)
        task.add_done_callback(self._chore_ended)
        return task

    async def _keep(self, chore: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a chore for as long as this worker lives: one that fails begins again after a pause."""
        while True:
            try:
                await chore()
            except Exception:
                logger.exception("%s failed in this worker; it begins again in %g s.", chore.__name__, CHORE_PAUSE)
            await asyncio.sleep(CHORE_PAUSE)

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        if task in self._chores:  # else the worker is about to end, and has cancelled it
            error = None if task.cancelled() else task.exception()
            self._fail(f"its chore {task.get_name()} has ended ({error!r})")

    def _fail(self, why: str) -> None:
        """End this worker, rather than leave it half alive."""
        if not self.failed:
            logger.critical("Worker %d ends, and hands back its runs: %s.", os.getpid(), why)
            self.failed = True
            self.hurry()

    async def _watch_leases(self) -> None:
        while True:
            if not self._leases.is_alive():
                self._fail("the thread that renews its leases has ended")
            await asyncio.sleep(WATCH_INTERVAL)

    async def _promote(self) -> None:
        while True:
            try:
                next_due = await self._queue.promote()
            except Unavailable:  # the main loop says so
                next_due = None
            await asyncio.sleep(POLL_INTERVAL if next_due is None else min(POLL_INTERVAL, next_due))

    def _executing(self) -> set[Execution]:
        return set(self._executor.attempts)

    def _renewed(self, executing: set[Execution], held: Held) -> None:
        """Stop what lost its lease (it was not renewed in time, and another worker has the run) or was cancelled."""
        for execution in executing - held.executions:
            self._interrupt(execution, Interruption.LOST)
        for execution in held.cancelled:
            self._interrupt(execution, Interruption.CANCELLED)

    def _interrupt(self, execution: Execution, why: Interruption) -> None:
        attempt = self._executor.attempts.get(execution)
        if attempt is not None:
            attempt.interrupt(why)

    async def _listen(self) -> None:
        """Hear of cancelled runs at once. What is missed here is read from the rows when leases are renewed."""
        while True:
            try:
                async for execution in events.cancellations():
                    self._interrupt(execution, Interruption.CANCELLED)
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own
                logger.warning("The channel layer is not there: %r", error)
            await asyncio.sleep(LAST_PAUSE)

    async def _take_back(self) -> None:
        """Free the runs of lost workers; after an outage of the database, workers renew their leases first."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                taken = await self._in_thread(upkeep.take_back)
            except (OperationalError, InterfaceError) as error:
                logger.warning("A sweep failed: %r; lost runs are looked for again when leases are renewed.", error)
                await asyncio.sleep(runs.LEASE.total_seconds() - SWEEP_INTERVAL)
            else:
                await asyncio.gather(*(events.publish(info.uuid, runs.final_report(info)) for info in taken))

    async def _requeue(self) -> None:
        """Queue pending runs again that have no job."""
        after = 0
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                after = await self._in_thread(partial(upkeep.requeue, self.queues, after))
            except Unavailable:  # the main loop says so
                pass
            except Exception as error:  # noqa: BLE001 - the database is away, say; the next sweep is in a few seconds
                logger.warning("A sweep failed: %r; lost jobs are looked for again in %g s.", error, SWEEP_INTERVAL)

    async def _prune(self) -> None:
        """Delete finished runs that have expired."""
        pruner = upkeep.Pruner()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                await self._in_thread(partial(upkeep.prune_pages, pruner))
            except Exception as error:  # noqa: BLE001 - the same
                logger.warning("A sweep failed: %r; what has expired is deleted later.", error)

    async def _in_thread(self, duty: Callable[[], T]) -> T:
        def call() -> T:
            try:
                return duty()
            finally:
                connections.close_all()

        return await asyncio.to_thread(call)

    async def _record_health(self) -> None:
        while True:
            try:
                await self._queue.record_health(f"done={self._done} running={len(self._running)}")
            except Unavailable as error:
                logger.debug("No health record: %s", error)
            await asyncio.sleep(HEALTH_INTERVAL)


def _complete(loop: asyncio.AbstractEventLoop, working: asyncio.Task[bool]) -> bool:
    """Run the loop until the worker has ended, whatever a callback of a task raises."""
    while True:
        try:
            return loop.run_until_complete(working)
        except (SystemExit, KeyboardInterrupt) as error:
            if working.done() or signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is Ctrl-C
                raise
            run = run_of(error)
            logger.error("The worker goes on although a callback raised %r (in run %s).", error, run and run.run)
            if run is not None:
                run.exited(error)
