"""Runs one task: from a run's uuid to its recorded outcome.

An Executor belongs to one event loop. Async tasks run on that loop, sync ones in threads of their own or, if
they ask for it, in processes of their own. Rows are written on the ledger's thread, so that none of them
waits for another.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import iscoroutinefunction

from taskapi import events, protocol, runs
from taskapi.conf import settings
from taskapi.exceptions import UnknownRun, UnknownTask
from taskapi.isolation.outside import Isolated
from taskapi.ledger import Ledger, WorkerLedger
from taskapi.models import TaskInfo, TaskMessage
from taskapi.progress import Said, Speaker
from taskapi.protocol import SEQ_PROGRESS, SEQ_STATE, SEQ_STATUS, SEQ_TARGET, Event, Report
from taskapi.registry import get_task
from taskapi.runs import Outcome
from taskapi.states import ErrorCode, Execution, Status
from taskapi.work import Interruption, Work, refusal, with_connections

logger = logging.getLogger(__name__)

BRIEFLY = 0.002  # seconds: a task that has ended by then is told of once, not when it begins and when it ends


class Attempt:
    """One execution of a run: what it says, on its way to the row and to the followers.

    Everything but the speaker's `wake` happens on the executor's loop. Reports leave in order: one at a
    time is made and written (`_reporting`), and one at a time is published (`_publisher`).
    """

    def __init__(self, info: TaskInfo, ledger: Ledger) -> None:
        loop = asyncio.get_running_loop()
        self.info = info
        self.speaker = Speaker(info.target, info.progress, wake=lambda: loop.call_soon_threadsafe(self._woken))
        self.work = Work(info, self.speaker)
        self._loop = loop
        self._ledger = ledger
        self._seq = info.seq
        self._target, self._progress = info.target, info.progress  # as last reported
        self._reporting = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._broken: Exception | None = None  # why a report could not be made
        self._publisher: asyncio.Task[None] | None = None
        status = protocol.status_event(info.uuid, info.attempt, info.seq + SEQ_STATUS, info.status)
        # A first attempt has nothing before it; what was last said of an earlier one may have gone unheard.
        since = -1 if info.attempt == 1 else info.seq - 1
        self._untold: Report | None = Report(info.seq, since, info.message_count, False, [status])
        self._timer = loop.call_later(BRIEFLY, self._start_to_publish)

    def interrupt(self, why: Interruption) -> None:
        """Stop the task."""
        self.work.interrupt(why)

    async def finish(self, outcome: Outcome) -> None:
        """Write the last words and the outcome, and publish them."""
        try:
            async with self._reporting:
                if self._pump is not None:
                    self._pump.cancel()  # it sleeps, or waits for its turn: a report under way is not cut off
                try:
                    await self._write_end(outcome if self._broken is None else self.work.stumble(self._broken))
                except Exception as error:  # noqa: BLE001 - whatever it is, no run may stay `running` for it
                    await self._write_end(self.work.stumble(error))
        finally:
            self._timer.cancel()
            if self._publisher is not None:
                await self._publisher

    async def _write_end(self, outcome: Outcome) -> None:
        said = self._monotonic(self.speaker.collect())
        messages = self._rows(said.messages)
        seq = self._seq + len(messages) + SEQ_STATE
        write = partial(runs.finish, self.info, outcome, seq=seq, **self._state(said), messages=messages)
        final = await self._ledger.write(write)
        if final is None:
            logger.warning("Run %s went on without attempt %d.", self.info.uuid, self.info.attempt)
        else:
            self._tell(self._report(said, messages, seq, final))

    async def abandon(self) -> None:
        """Hand the run back although its task still runs, in a thread that cannot be ended."""
        await self.finish(Outcome(Status.PENDING))

    # Reporting what the task says

    def _woken(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = self._loop.create_task(self._report_changes())

    async def _report_changes(self) -> None:
        """Report at once, and then once an interval for as long as there is something to say."""
        while self.speaker.pending:
            try:
                async with self._reporting:
                    await self._report_once()
            except Exception as error:  # noqa: BLE001 - what was collected is lost, so the run cannot succeed
                self._broken = error
                self.interrupt(Interruption.LOST)
                return
            await asyncio.sleep(settings.event_interval)

    async def _report_once(self) -> None:
        """Write what changed, and then publish it: followers are told nothing that the row does not say."""
        said = self._monotonic(self.speaker.collect())
        messages = self._rows(said.messages)
        if not messages and (said.target, said.progress) == (self._target, self._progress):
            return
        seq = self._seq + len(messages) + SEQ_STATE
        write = partial(runs.record, self.info, seq=seq, **self._state(said), messages=messages)
        if await self._ledger.write(write):
            self._tell(self._report(said, messages, seq, None))
        else:
            self.interrupt(Interruption.LOST)

    def _monotonic(self, said: Said) -> Said:
        """Progress never goes backwards within an attempt."""
        if self._progress is not None and (said.progress is None or said.progress < self._progress):
            return said._replace(progress=self._progress)
        return said

    def _state(self, said: Said) -> dict[str, int | None]:
        return {"target": said.target, "progress": said.progress}

    def _rows(self, messages: list[Any]) -> list[TaskMessage]:
        info, first = self.info, self.info.message_count
        return [
            TaskMessage(run_id=info.pk, index=first + n, attempt=info.attempt, seq=self._seq + 1 + n, body=body)
            for n, body in enumerate(messages)
        ]

    def _report(self, said: Said, messages: list[TaskMessage], seq: int, final: TaskInfo | None) -> Report:
        """What followers are told of a write, and remember that they were."""
        uuid, attempt = self.info.uuid, self.info.attempt
        told: list[Event] = [protocol.message_event(uuid, attempt, row.seq, row.index, row.body) for row in messages]
        if said.target != self._target:
            told.append(protocol.target_event(uuid, attempt, seq + SEQ_TARGET, said.target))
        if said.progress != self._progress:
            told.append(protocol.progress_event(uuid, attempt, seq + SEQ_PROGRESS, said.progress, said.target))
        finished = final is not None and final.is_final
        if final is not None:
            told.append(protocol.finished_event(final) if finished else _status(final, seq))
        since = self._seq
        self.info.message_count += len(messages)
        self._seq, self._target, self._progress = seq, said.target, said.progress
        return Report(seq, since, self.info.message_count, finished, told)

    def _tell(self, report: Report) -> None:
        self._untold = report if self._untold is None else self._untold.then(report)
        self._start_to_publish()

    def _start_to_publish(self) -> None:
        self._timer.cancel()
        if self._publisher is None or self._publisher.done():
            self._publisher = self._loop.create_task(self._publish())

    async def _publish(self) -> None:
        """Publish what is untold: as one, where more was written while the layer took the last."""
        while self._untold is not None:
            report, self._untold = self._untold, None
            await events.publish(self.info.uuid, report)


def _status(info: TaskInfo, seq: int) -> Event:
    # A status is the last thing said here, after the progress: in the slot that `finished` has otherwise.
    return protocol.status_event(info.uuid, info.attempt, seq, info.status)


class Executor:
    """Executes runs, at most `concurrency` at once, on the running event loop."""

    def __init__(self, concurrency: int) -> None:
        self.worker = uuid4().hex  # by which the runs that it holds are known
        self.attempts: dict[Execution, Attempt] = {}
        self._ending: Interruption | None = None
        self._loop = asyncio.get_running_loop()
        self._ledger = WorkerLedger()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="taskapi-task")

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
        await self._ledger.close()

    async def _outcome(self, attempt: Attempt) -> Outcome:
        try:
            return await self._run(attempt)
        except Exception as error:  # noqa: BLE001 - a task that cannot even be made, say
            return attempt.work.stumble(error)

    async def _run(self, attempt: Attempt) -> Outcome:
        work = attempt.work
        try:
            definition = get_task(work.info.task)
        except UnknownTask as error:
            return Outcome.failed(ErrorCode.UNKNOWN_TASK, str(error))
        timer = None
        if definition.timeout is not None:
            timer = self._loop.call_later(definition.timeout, work.interrupt, Interruption.TIMEOUT)
        try:
            if definition.isolation == "process":
                return await Isolated(work).run(self._threads)
            task = work.make(definition)
            if iscoroutinefunction(task.run):
                return await work.arun(task, self._threads)
            return await self._loop.run_in_executor(self._threads, with_connections, partial(work.run, task))
        finally:
            if timer is not None:
                timer.cancel()
