"""A host executes runs: on any event loop, in any process, for any queue.

    async with Host() as host:
        await host.execute(uuid)

A run's lease, its progress, cancel, timeout and outcome come with the host. It has no queue of its own, installs no
signal handler and changes no setting of the process. It does change its event loop: what the code of a run starts
there gets threads of its own, and cannot end the loop (taskapi.workers.contexts). The loop keeps that when the host
has stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from django.db import InterfaceError, OperationalError, connections

from taskapi import events, files, runs
from taskapi.backends import QueueUnavailable
from taskapi.protocol.states import Execution
from taskapi.store.silence import watching
from taskapi.workers import upkeep
from taskapi.workers.attempt import Attempt
from taskapi.workers.call import Interruption
from taskapi.workers.chores import Chores
from taskapi.workers.executor import Executor
from taskapi.workers.leases import LeaseKeeper
from taskapi.workers.upkeep import Renewal

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_CONCURRENCY = 10  # runs at once
CLEANUP_TIME = 5.0  # seconds that interrupted tasks get to clean up
HAND_BACK_LIMIT = 5.0  # seconds for the database to take back what did not end by then
SWEEP_INTERVAL = 2.0  # seconds between two sweeps
WATCH_INTERVAL = 1.0  # seconds between two looks at the thread that renews leases
LISTEN_PAUSE = 2.0  # seconds after which cancels that could not be heard are listened for again


class Host:
    """Executes runs, from its start to its stop, on the event loop that starts it.

    `concurrency`: how many runs its caller executes at once; the host has so many threads for sync tasks. `queues`:
    the host queues their pending runs again if their jobs were lost. `identity`: the name under which it holds its
    runs; unique. `on_failure`: called once, on the loop, with a sentence, if the host can no longer do its work; its
    caller should then stop it, which hands back its runs, and start another.
    """

    def __init__(
        self,
        *,
        queues: Sequence[str] = (),
        concurrency: int = DEFAULT_CONCURRENCY,
        identity: str | None = None,
        on_failure: Callable[[str], object] | None = None,
    ) -> None:
        self.queues = list(queues)
        self.concurrency = concurrency
        self.identity = identity or uuid4().hex
        self.failed = False
        self._on_failure = on_failure or _log_failure

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin, on the running event loop."""
        loop = asyncio.get_running_loop()
        self._executor = Executor(self.concurrency, self.identity)

        def renewed(executing: set[Execution], renewal: Renewal) -> None:  # on the keeper's thread
            loop.call_soon_threadsafe(self._renewed, executing, renewal)

        self._leases = LeaseKeeper(self.identity, self._executing, renewed)
        self._leases.start()
        self._chores = Chores(self._fail)
        self._chores.begin(self._take_back, self._prune, self._clear_files, self._listen, self._watch_leases)
        if self.queues:
            self._chores.begin(self._requeue)

    def execute(self, uuid: UUID) -> Coroutine[Any, Any, bool]:
        """Take the run up, run its task and record how it ended; False if another has it, or it is left to others.

        Raises UnknownRun if there is no row of the run here. A caller never cancels this: it cancels the run, or stops
        the host.
        """
        return self._executor.execute(uuid)

    async def stop(self, cleanup_time: float = CLEANUP_TIME) -> bool:
        """Interrupt the tasks that run, and hand back their runs; False if one of them may have left a thread behind.

        Tasks get `cleanup_time` seconds to clean up. The caller executes nothing more. A caller that wants its runs to
        finish waits for them first.
        """
        self._chores.stop()
        try:
            return await self._shut_down(cleanup_time)
        finally:
            self._leases.stop()

    async def _shut_down(self, cleanup_time: float) -> bool:
        interrupted = not self._executor.is_idle
        self._executor.interrupt_all(Interruption.HANDED_BACK)
        await self._executor.wait_until_idle(cleanup_time)
        try:
            async with asyncio.timeout(HAND_BACK_LIMIT):
                await asyncio.gather(*map(self._hand_back, list(self._executor.attempts.values())))
                await self._executor.close()
        except TimeoutError:
            logger.warning(
                "The database or the queue gave no answer within %g s. Runs that could not be handed back are taken up "
                "when their leases run out.",
                HAND_BACK_LIMIT,
            )
            return False
        return not interrupted

    async def _hand_back(self, attempt: Attempt) -> None:
        try:
            await attempt.abandon()
        except Exception:  # whatever it is about this run, the others are handed back
            logger.exception(
                "Run %s could not be handed back; another worker takes it up when its lease has run out.",
                attempt.info.uuid,
            )

    def _fail(self, why: str) -> None:
        if not self.failed:
            self.failed = True
            self._on_failure(why)

    # Leases and cancellations

    def _executing(self) -> set[Execution]:
        return set(self._executor.attempts)

    def _renewed(self, executing: set[Execution], renewal: Renewal) -> None:
        """Stop attempts that have lost their lease (another worker may have the run), and those that were cancelled."""
        for execution in executing - renewal.held:
            self._interrupt(execution, Interruption.LOST)
        for execution in renewal.cancelled:
            self._interrupt(execution, Interruption.CANCELLED)

    def _interrupt(self, execution: Execution, why: Interruption) -> None:
        attempt = self._executor.attempts.get(execution)
        if attempt is not None:
            attempt.interrupt(why)

    async def _watch_leases(self) -> None:
        while True:
            if not self._leases.is_alive():
                self._fail("the thread that renews its leases has ended")
            await asyncio.sleep(WATCH_INTERVAL)

    async def _listen(self) -> None:
        """Hear of cancelled runs at once. What is missed here is read from the rows when leases are renewed."""
        while True:
            try:
                async for execution in events.cancellations():
                    self._interrupt(execution, Interruption.CANCELLED)
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own
                logger.warning(
                    "Cancels cannot be heard (%r); the next try is in %g s, and until then they are read from the rows "
                    "each time that leases are renewed.",
                    error,
                    LISTEN_PAUSE,
                )
            await asyncio.sleep(LISTEN_PAUSE)

    # Sweeps

    async def _take_back(self) -> None:
        """Free the runs of lost workers; after an outage of the database, workers renew their leases first."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                taken = await _in_thread(upkeep.take_back)
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
                after = await _in_thread(partial(upkeep.requeue, self.queues, after))
            except QueueUnavailable as error:
                logger.debug("The queue is unavailable: %s; the next sweep is in %g s.", error, SWEEP_INTERVAL)
            except Exception as error:  # noqa: BLE001 - the database is away, say; the next sweep is in a few seconds
                logger.warning("A sweep failed: %r; lost jobs are looked for again in %g s.", error, SWEEP_INTERVAL)

    async def _prune(self) -> None:
        """Delete finished runs that have expired."""
        pruner = upkeep.Pruner()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                await _in_thread(partial(upkeep.prune_pages, pruner))
            except Exception as error:  # noqa: BLE001 - as above
                logger.warning("A sweep failed: %r; expired runs are deleted later.", error)

    async def _clear_files(self) -> None:
        """Delete files that no run uses."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                await _in_thread(watching()(files.clear))
            except Exception as error:  # noqa: BLE001 - as above
                logger.warning("A sweep failed: %r; unused files are deleted later.", error)


def _log_failure(why: str) -> None:
    logger.critical("A host cannot execute runs any more: %s. Stop it, and start another.", why)


async def _in_thread(duty: Callable[[], T]) -> T:
    def call() -> T:
        try:
            return duty()
        finally:
            connections.close_all()

    return await asyncio.to_thread(call)
