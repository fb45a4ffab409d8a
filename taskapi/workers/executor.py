"""Runs one task: from a run's uuid to its recorded outcome.

An Executor belongs to one event loop. Async tasks run on that loop, sync ones in threads. A task that asks for it runs
in a process of its own. Rows are written on the ledger's thread, so that tasks and rows do not wait for one another.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from uuid import UUID, uuid4

from asgiref.sync import iscoroutinefunction

from taskapi import runs
from taskapi.exceptions import UnknownRun, UnknownTask
from taskapi.protocol.states import ErrorCode, Execution, Status
from taskapi.runs import Outcome
from taskapi.store.ledger import WorkerLedger
from taskapi.tasks import Task
from taskapi.tasks.registry import get_task
from taskapi.workers import journal
from taskapi.workers.attempt import LOOP_GOES_ON, THREAD_GOES_ON, Attempt
from taskapi.workers.call import Interruption, refusal, with_connections
from taskapi.workers.contexts import RunContext, prepare
from taskapi.workers.isolation.parent import Isolated

logger = logging.getLogger(__name__)


class Executor:
    """Executes runs on the running event loop; its caller gives it at most `concurrency` at once."""

    def __init__(self, concurrency: int, worker: str | None = None) -> None:
        self.worker = worker or uuid4().hex  # the name under which it holds its runs
        self.attempts: dict[Execution, Attempt] = {}
        self._under_way = 0  # calls of `execute`: some of them have no attempt yet
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: Interruption | None = None
        self._loop = asyncio.get_running_loop()
        self._ledger = WorkerLedger()
        self._concurrency = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="taskapi-task")
        self._converting = ThreadPoolExecutor(concurrency, thread_name_prefix="taskapi-values")  # for async tasks
        self._pristine = contextvars.copy_context()
        self._all_wait = False  # all runs wait for others, and the log says so
        prepare(self._loop)

    async def execute(self, uuid: UUID) -> bool:
        """Take the run up, run its task and record how it ended; False if another has it, or it is left to others.

        Raises UnknownRun if there is no row of the run here.
        """
        self._under_way += 1
        self._idle.clear()
        try:
            info = await self._ledger.write(partial(runs.begin, uuid, self.worker, refusal))
            if info is None:
                if not await self._ledger.write(partial(runs.is_recorded, uuid)):
                    raise UnknownRun(uuid)
                logger.debug("Run %s is not pending; nothing to do.", uuid)
                return False
            attempt = self.attempts[uuid, info.attempt] = Attempt(info, self._ledger)
            journal.begun(info)
            if self._ending is not None:  # it was about to begin when all were interrupted
                attempt.interrupt(self._ending)
            try:
                outcome = await self._outcome(attempt)
                await attempt.finish(outcome)
                return not outcome.refused
            finally:
                del self.attempts[uuid, info.attempt]
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Nothing is executed, nor about to be."""
        return not self._under_way

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until nothing is executed, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def interrupt_all(self, why: Interruption) -> None:
        """Stop all tasks, also those that are about to begin."""
        self._ending = why
        for attempt in list(self.attempts.values()):
            attempt.interrupt(why)

    async def close(self) -> None:
        """Close threads and connections. A thread is left behind if its task does not end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._converting.shutdown(wait=False, cancel_futures=True)
        await self._ledger.close()

    async def _outcome(self, attempt: Attempt) -> Outcome:
        try:
            return await self._run(attempt)
        except asyncio.CancelledError:  # the loop is closed
            raise
        except BaseException as error:  # noqa: BLE001 - no error of a run may end the worker
            return attempt.call.stumble(error)
        finally:
            attempt.stopped()
            if attempt.surroundings is not None:
                attempt.surroundings.end()
                attempt.surroundings = None

    async def _run(self, attempt: Attempt) -> Outcome:
        call = attempt.call
        try:
            definition = get_task(call.info.task)
        except UnknownTask as error:
            return Outcome.failed(ErrorCode.UNKNOWN_TASK, str(error))
        if definition.timeout is not None:
            attempt.limit(definition.timeout)
        if definition.isolation == "process":
            return await Isolated(call).run()
        if call.info.lost:  # the task may have ended its worker: in a process of its own it harms no other run
            outcome = await Isolated(call).run()
            if not outcome.is_unknown_task:
                return outcome
            # The new process has other settings or newer code, and does not know the task: it runs here.
            call.on_interrupt(call.speaker.interrupt)
        return await self._run_here(attempt, definition)

    async def _run_here(self, attempt: Attempt, definition: type[Task]) -> Outcome:
        call = attempt.call
        surroundings = attempt.surroundings = RunContext(call.info.uuid, self._pristine)
        surroundings.on_exit, surroundings.on_wait = call.exit, self._look_at_waits
        context = surroundings.context
        try:
            task = context.run(call.make, definition)
            is_async = iscoroutinefunction(task.run)
        except BaseException as error:  # noqa: BLE001 - a task's own code, too
            return call.fail(error)
        attempt.cannot_be_ended = LOOP_GOES_ON if is_async else THREAD_GOES_ON
        if is_async:
            return await call.arun(task, self._converting, context)
        run = partial(context.run, call.run, task)
        return await self._loop.run_in_executor(self._threads, with_connections, run, call.info.uuid)

    def _look_at_waits(self) -> None:
        """Warn if all slots are taken by runs that wait for runs without a slot; called from any thread."""
        attempts = list(self.attempts.values())
        queues = {attempt.info.queue for attempt in attempts}
        waits = [run.waits_for for attempt in attempts if (run := attempt.surroundings) is not None]
        stuck = [
            awaited[0]
            for awaited in waits
            if awaited and all(info.status == Status.PENDING and info.queue in queues for info in awaited)
        ]
        if len(stuck) < self._concurrency:
            self._all_wait = False
        elif not self._all_wait:
            self._all_wait = True
            logger.warning(
                "All %d runs that this worker can execute at once wait for the result of another run, such as %s (task "
                "%r), which cannot begin before one of them ends. Give tasks that others wait for their own `queue` "
                "and worker, or give this worker more `--concurrency`.",
                self._concurrency,
                stuck[0].uuid,
                stuck[0].task,
            )
