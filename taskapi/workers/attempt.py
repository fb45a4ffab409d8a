"""One attempt of a run: how its task is limited and stopped, and how what it says gets to the row and the followers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from functools import partial

from taskapi import events, protocol, runs
from taskapi.conf import settings
from taskapi.models import TaskInfo
from taskapi.protocol import SEQ_STATE, Report, State
from taskapi.runs import Outcome
from taskapi.store.ledger import Ledger
from taskapi.tasks.progress import Speaker
from taskapi.workers import journal
from taskapi.workers.account import Account
from taskapi.workers.call import Interruption, TaskCall
from taskapi.workers.contexts import RunContext

logger = logging.getLogger(__name__)

NOTICE = 0.5  # seconds in which a task that was asked to stop has to stop; else the log says why it may go on
BRIEFLY = 0.002  # seconds: the beginning and the end of a task that has ended by then are published as one


class Attempt(Account):
    """One execution of a run.

    Everything but the speaker's `wake` happens on the executor's loop. Reports leave in order: one at a
    time is made and written (`_reporting`), and one at a time is published (`_publisher`).
    """

    def __init__(self, info: TaskInfo, ledger: Ledger) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(info)
        own = contextvars.copy_context()  # not that of the task, which calls `wake`
        wake = partial(loop.call_soon_threadsafe, self._woken, context=own)
        self.speaker = Speaker(info.target, info.progress, wake=wake)
        self.call = TaskCall(info, self.speaker)
        self.surroundings: RunContext | None = None  # of a task that runs in this process
        self.cannot_be_ended = ""  # why the task may go on after it was asked to stop; empty if it cannot
        self._own = own
        self._timeout: asyncio.TimerHandle | None = None
        self._due: float | None = None  # when its timeout is over
        self._notice: asyncio.TimerHandle | None = None
        self._loop = loop
        self._begun = loop.time()
        self._ledger = ledger
        self._reporting = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._broken: Exception | None = None  # why a report could not be made
        self._publisher: asyncio.Task[None] | None = None
        begun = [protocol.begun_event(info.uuid, info.attempt)]
        # A first attempt has nothing before it. Of an earlier attempt, the last events may have been lost.
        since = -1 if info.attempt == 1 else info.seq - 1
        self._unpublished: Report | None = Report(info.seq, since, info.message_count, False, begun)
        self._timer = loop.call_later(BRIEFLY, self._start_to_publish)

    def interrupt(self, why: Interruption) -> None:
        """Stop the task. If it goes on all the same, the log says so."""
        if self.call.interruption is None and self.cannot_be_ended:
            self._notice = self._loop.call_later(NOTICE, self._say_that_it_goes_on, _WHY[why])
        self.call.interrupt(why)

    def limit(self, seconds: float) -> None:
        """Interrupt the task `seconds` after its first line. May be called from its thread."""

        def start() -> None:
            later = self._loop.call_later(seconds, self.interrupt, Interruption.TIMEOUT, context=self._own)
            self._timeout, self._due = later, later.when()

        def begin() -> None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self._loop.call_soon_threadsafe(start)
            else:  # at once: it may be about to block the loop
                start()

        self.call.on_begin = begin

    def stopped(self) -> None:
        """The task has ended."""
        if self._timeout is not None:
            self._timeout.cancel()
        if self._notice is not None:
            self._notice.cancel()
        # A task that blocks the loop keeps its own timer from being called.
        late = self._due is not None and self._loop.time() > self._due + NOTICE
        if late and self.cannot_be_ended:
            self._say_that_it_goes_on(_WHY[Interruption.TIMEOUT])
        self.cannot_be_ended = ""

    def _say_that_it_goes_on(self, why: str) -> None:
        logger.warning(
            "Run %s of the task %r was asked to stop, because %s, and did not within %g s. %s With "
            "`isolation = 'process'` it would be ended.",
            self.info.uuid,
            self.info.task,
            why,
            NOTICE,
            self.cannot_be_ended,
        )
        self.cannot_be_ended = ""  # once is enough

    async def finish(self, outcome: Outcome) -> None:
        """Write the last words and the outcome, and publish them."""
        seconds = self._loop.time() - self._begun
        try:
            async with self._reporting:
                if self._pump is not None:
                    self._pump.cancel()  # it sleeps, or waits for `_reporting`: no report is cut off
                if self._broken is not None:
                    outcome = self.call.stumble(self._broken)
                try:
                    final = await self._write_end(outcome)
                except Exception as error:  # noqa: BLE001 - no error may leave the run `running`
                    outcome = self.call.stumble(error)
                    final = await self._write_end(outcome)
        finally:
            self._timer.cancel()
            if self._publisher is not None:
                await self._publisher
            self.speaker.release()
        if final is not None:
            journal.ended(final, outcome, seconds)

    async def _write_end(self, outcome: Outcome) -> TaskInfo | None:
        said = self._monotonic(self.speaker.collect())
        messages = self._rows(said.messages)
        seq = self._reported.seq + len(messages) + SEQ_STATE
        write = partial(runs.finish, self.info, outcome, seq=seq, **self._numbers(said), messages=messages)
        final = await self._ledger.write(write)
        if final is None:
            logger.warning(
                "Run %s is no longer held by attempt %d: its outcome is dropped.", self.info.uuid, self.info.attempt
            )
        else:
            self._publish_soon(self._report(final, messages))
        return final

    async def abandon(self) -> None:
        """Hand the run back although its task still runs, in a thread that cannot be ended."""
        await self.finish(runs.HANDED_BACK)

    # Reporting what the task says

    def _woken(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = self._loop.create_task(self._report_changes())

    async def _report_changes(self) -> None:
        """Report at once, and then once an interval while the task says something."""
        while self.speaker.pending:
            try:
                async with self._reporting:
                    await self._report_once()
            except Exception as error:  # noqa: BLE001 - what was collected is lost, so the run must not succeed
                self._broken = error
                self.interrupt(Interruption.LOST)
                return
            await asyncio.sleep(settings.event_interval)

    async def _report_once(self) -> None:
        """Write what changed, and then publish it: followers hear nothing that the row does not say."""
        said = self._monotonic(self.speaker.collect())
        messages = self._rows(said.messages)
        reported = self._reported
        if not messages and said.target == reported.target and said.progress == reported.progress:
            return
        seq = reported.seq + len(messages) + SEQ_STATE
        write = partial(runs.record, self.info, seq=seq, **self._numbers(said), messages=messages)
        if await self._ledger.write(write):
            now = State(self.info.uuid, seq, self.info.attempt, said.target, said.progress)
            self._publish_soon(self._report(now, messages))
        else:
            self.interrupt(Interruption.LOST)

    def _publish_soon(self, report: Report) -> None:
        self._unpublished = report if self._unpublished is None else self._unpublished.then(report)
        self._start_to_publish()

    def _start_to_publish(self) -> None:
        self._timer.cancel()
        if self._publisher is None or self._publisher.done():
            self._publisher = self._loop.create_task(self._publish())

    async def _publish(self) -> None:
        """Publish what is not published yet: as one report, if more was written while the last one was sent."""
        while self._unpublished is not None:
            report, self._unpublished = self._unpublished, None
            await events.publish(self.info.uuid, report)


_WHY = {
    Interruption.CANCELLED: "it was cancelled",
    Interruption.TIMEOUT: "its timeout is over",
    Interruption.HANDED_BACK: "its worker ends",
    Interruption.LOST: "its lease was lost, and another worker may execute it",
}
THREAD_GOES_ON = "A thread cannot be stopped: it goes on until its next progress call, or until its end."
LOOP_GOES_ON = "An async task goes on if it blocks the event loop, or catches CancelledError."
