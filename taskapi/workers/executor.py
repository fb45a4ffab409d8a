"""Runs one task: from a run's uuid to its recorded outcome.

An Executor belongs to one event loop. Async tasks run on that loop, sync ones in threads of their own or, if
they ask for it, in processes of their own. Rows are written on the ledger's thread, so that none of them
waits for another.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
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
from taskapi.workers.attempt import LOOP_GOES_ON, THREAD_GOES_ON, Attempt
from taskapi.workers.call import Interruption, refusal, with_connections
from taskapi.workers.contexts import RunContext, prepare
from taskapi.workers.isolation.parent import Isolated

logger = logging.getLogger(__name__)


class Executor:
    """Executes runs, at most `concurrency` at once, on the running event loop."""

    def __init__(self, concurrency: int, worker: str | None = None) -> None:
        self.worker = worker or uuid4().hex  # by which the runs that it holds are known
        self.attempts: dict[Execution, Attempt] = {}
        self._ending: Interruption | None = None
        self._loop = asyncio.get_running_loop()
        self._ledger = WorkerLedger()
        self._concurrency = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="taskapi-task")
        self._converting = ThreadPoolExecutor(concurrency, thread_name_prefix="taskapi-values")  # of async tasks
        self._pristine = contextvars.copy_context()
        self._all_wait = False  # the log has said so
        prepare(self._loop)

    async def execute(self, uuid: UUID) -> bool:
        """Take the run up, run its task and record how it ended; False where somebody else has it.

        Raises UnknownRun where there is no such run.
        """
        info = await self._ledger.write(partial(runs.begin, uuid, self.worker, refusal))
        if info is None:
            if not await self._ledger.write(partial(runs.is_recorded, uuid)):
                raise UnknownRun(uuid)
            logger.debug("Run %s is not pending; nothing to do.", uuid)
            return False
        attempt = self.attempts[uuid, info.attempt] = Attempt(info, self._ledger)
        if self._ending is not None:  # it was on its way when all were interrupted
            attempt.interrupt(self._ending)
        try:
            outcome = await self._outcome(attempt)
            await attempt.finish(outcome)
            return not outcome.refused
        finally:
            del self.attempts[uuid, info.attempt]

    def interrupt_all(self, why: Interruption) -> None:
        """Stop all tasks, and those that are about to begin."""
        self._ending = why
        for attempt in list(self.attempts.values()):
            attempt.interrupt(why)

    async def close(self) -> None:
        """Close threads and connections. A thread whose task does not end is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._converting.shutdown(wait=False, cancel_futures=True)
        await self._ledger.close()

    async def _outcome(self, attempt: Attempt) -> Outcome:
        try:
            return await self._run(attempt)
        except asyncio.CancelledError:  # the loop is closed
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is no reason to end the worker
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
        if call.info.lost:  # it may be what ended its worker: so it has no neighbours any more that it could harm
            outcome = await Isolated(call).run()
            if not outcome.is_unknown_task:
                return outcome
            call.on_interrupt(call.speaker.interrupt)  # a new process has other settings, or newer code: so, here
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
        """Say it where no slot is left for the runs that all others wait for; called from any thread."""
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
                "%r), which waits for one of them to end. Give the tasks that others wait for a `queue` of their own, "
                "with a worker of its own, or give this worker more `--concurrency`.",
                self._concurrency,
                stuck[0].uuid,
                stuck[0].task,
            )
