"""One attempt of a run: what its task says, on its way to the row and to the followers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from functools import partial
from typing import Any

from taskapi import events, protocol, runs
from taskapi.conf import settings
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_PROGRESS, SEQ_STATE, SEQ_STATUS, SEQ_TARGET, Event, Report
from taskapi.runs import Outcome
from taskapi.store.ledger import Ledger
from taskapi.tasks.progress import ProgressUpdate, Speaker
from taskapi.workers.call import Interruption, TaskCall
from taskapi.workers.contexts import RunContext

logger = logging.getLogger(__name__)

NOTICE = 0.5  # seconds in which a task that was asked to stop does so; else the log says why it may not
BRIEFLY = 0.002  # seconds: a task that has ended by then is told of once, not when it begins and when it ends


class Attempt:
    """One execution of a run: what it says, on its way to the row and to the followers.

    Everything but the speaker's `wake` happens on the executor's loop. Reports leave in order: one at a
    time is made and written (`_reporting`), and one at a time is published (`_publisher`).
    """

    def __init__(self, info: TaskInfo, ledger: Ledger) -> None:
        loop = asyncio.get_running_loop()
        self.info = info
        own = contextvars.copy_context()  # and not the task's, from which it is called
        wake = partial(loop.call_soon_threadsafe, self._woken, context=own)
        self.speaker = Speaker(info.target, info.progress, wake=wake)
        self.call = TaskCall(info, self.speaker)
        self.surroundings: RunContext | None = None  # of a task that runs here
        self.cannot_be_ended = ""  # why, of a task that was asked to stop and does not
        self._own = own
        self._timeout: asyncio.TimerHandle | None = None
        self._due: float | None = None  # when its timeout was, or is, over
        self._notice: asyncio.TimerHandle | None = None
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
        """Stop the task; say so in the log where it goes on all the same."""
        if self.call.interruption is None and self.cannot_be_ended:
            self._notice = self._loop.call_later(NOTICE, self._say_that_it_goes_on, _WHY[why])
        self.call.interrupt(why)

    def limit(self, seconds: float) -> None:
        """Interrupt the task so long after its first line; may be called from its thread."""

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
        # One that blocks the loop keeps its own timer from being noticed.
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
        try:
            async with self._reporting:
                if self._pump is not None:
                    self._pump.cancel()  # it sleeps, or waits for its turn: a report under way is not cut off
                try:
                    await self._write_end(outcome if self._broken is None else self.call.stumble(self._broken))
                except Exception as error:  # noqa: BLE001 - whatever it is, no run may stay `running` for it
                    await self._write_end(self.call.stumble(error))
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
        await self.finish(runs.HANDED_BACK)

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

    def _monotonic(self, said: ProgressUpdate) -> ProgressUpdate:
        """Progress never goes backwards within an attempt."""
        if self._progress is not None and (said.progress is None or said.progress < self._progress):
            return said._replace(progress=self._progress)
        return said

    def _state(self, said: ProgressUpdate) -> dict[str, int | None]:
        return {"target": said.target, "progress": said.progress}

    def _rows(self, messages: list[Any]) -> list[TaskMessage]:
        info, first = self.info, self.info.message_count
        return [
            TaskMessage(run_id=info.pk, index=first + n, attempt=info.attempt, seq=self._seq + 1 + n, body=body)
            for n, body in enumerate(messages)
        ]

    def _report(self, said: ProgressUpdate, messages: list[TaskMessage], seq: int, final: TaskInfo | None) -> Report:
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


_WHY = {
    Interruption.CANCELLED: "somebody has cancelled it",
    Interruption.TIMEOUT: "its timeout is over",
    Interruption.HANDED_BACK: "its worker ends",
    Interruption.LOST: "its worker has lost it, and another may execute it",
}
THREAD_GOES_ON = "A thread cannot be stopped: it ends at its next progress call, or as it ends."
LOOP_GOES_ON = "An async task goes on if it blocks the event loop, or catches CancelledError."


def _status(info: TaskInfo, seq: int) -> Event:
    # A status is the last thing said here, after the progress: in the slot that `finished` has otherwise.
    return protocol.status_event(info.uuid, info.attempt, seq, info.status)
