"""Executes runs inline: in the thread of the caller, and on its connections to the databases.

So it works inside the transaction of a TestCase, which no other thread can see. Nothing here waits. The next attempt of
a run follows at once, whatever its delay is, and a task's own timeout is noticed at its next progress call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import DatabaseError, router, transaction

from taskapi import events, protocol, runs
from taskapi.conf import settings
from taskapi.engines import savepoints
from taskapi.engines.calls import InlineCall, InlineSpeaker, as_in_a_worker
from taskapi.exceptions import UnknownTask
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_STATE, Event, Report, State
from taskapi.protocol.states import ErrorCode, Status
from taskapi.runs import Outcome
from taskapi.tasks import Task
from taskapi.tasks.registry import get_task
from taskapi.workers.account import Account
from taskapi.workers.call import Interruption

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Reports of an attempt that are written one by one. Those that follow are written once an interval: in one transaction,
# PostgreSQL takes longer for each further version of a row.
WRITTEN_AT_ONCE = 1_000


@dataclass
class Executed:
    """What could be seen of a run while it was executed."""

    events: list[Event] = field(default_factory=list)
    exception: BaseException | None = None  # what its last attempt raised


def execute(uuid: UUID, definition: type[Task] | None = None, *, published: bool = True) -> Executed:
    """Execute the run to its end, all attempts of it; one that is not pending is left alone.

    `definition`: its task, which need not be registered then. `published`: its followers are told. What is raised to
    end the process, or a test, goes on to the caller, once the run has failed.
    """
    seen = Executed()
    while (info := runs.begin(uuid, early=True)) is not None:
        attempt = InlineAttempt(info, published)
        goes_on = attempt.execute(definition)
        seen.events += attempt.events
        seen.exception = attempt.call.raised
        if attempt.call.escaped is not None:
            raise attempt.call.escaped
        if not goes_on:
            break
    return seen


class InlineAttempt(Account):
    """One execution of a run, in the thread that makes this object.

    Each call of the task becomes events at once. Rows are written by the thread of the attempt alone: what other
    threads say, or an event loop, is written when that thread writes again, or at the end.
    """

    def __init__(self, info: TaskInfo, published: bool) -> None:
        super().__init__(info)
        self.events: list[Event] = []
        self.speaker = InlineSpeaker(info.target, info.progress, wake=self._hear)
        self.speaker.look = self._look
        self.call = InlineCall(info, self.speaker)
        self._published = published
        self._thread = threading.get_ident()
        self._lock = threading.Lock()  # a task may speak in several threads
        self._said: list[TaskMessage] = []
        self._unwritten: list[TaskMessage] = []
        self._unpublished: list[Report] = []
        self._reports = 0
        self._next_write = 0.0
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        begun = [protocol.begun_event(info.uuid, info.attempt)]
        self._add(Report(info.seq, -1 if info.attempt == 1 else info.seq - 1, info.message_count, False, begun))

    def execute(self, definition: type[Task] | None) -> bool:
        """Call the task, and record how it ended; True if another attempt follows."""
        blocks = savepoints.begin()
        try:
            with runs.stopped_by(partial(self.call.interrupt, Interruption.CANCELLED), self.info):
                outcome = self._outcome(definition)
        except BaseException as error:  # noqa: BLE001 - the caller was cancelled, say: it goes on when the run has ended
            self.call.escaped = error
            outcome = self.call.stumble(error)
        if self._deadline is not None and time.monotonic() >= self._deadline and self.call.interruption is None:
            logger.warning(
                "Run %s of the task %r took longer than its timeout and did not notice: it made no progress call.",
                self.info.uuid,
                self.info.task,
            )
        if savepoints.end(blocks):
            self._unwritten = self._said
            logger.warning(
                "Run %s left the transaction of its caller broken, so all that its task %r did in the database is "
                "undone. In a worker there is no such transaction. If the task is to go on after a database error, "
                "put what may fail into `transaction.atomic()`.",
                self.info.uuid,
                self.info.task,
            )
        return self._finish(outcome)

    # Calling the task

    def _outcome(self, definition: type[Task] | None) -> Outcome:
        try:
            definition = definition or get_task(self.info.task)
        except UnknownTask as error:
            return Outcome.failed(ErrorCode.UNKNOWN_TASK, str(error))
        if definition.timeout is not None:
            self.call.on_begin = partial(self._limit, definition.timeout)
        context = copy_context()
        context.run(as_in_a_worker)
        try:
            task = context.run(self.call.make, definition)
            is_async = iscoroutinefunction(task.run)
        except BaseException as error:  # noqa: BLE001 - a task's own code
            return self.call.fail(error)
        return async_to_sync(self._arun)(task) if is_async else context.run(self.call.run, task)

    async def _arun(self, task: Task) -> Outcome:
        """On the event loop of the caller, or on one that is made for the task."""
        context = copy_context()
        context.run(as_in_a_worker)
        try:
            return await self.call.arun(task, context=context)
        except asyncio.CancelledError:
            self.call.interrupt(Interruption.CANCELLED)
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _limit(self, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._deadline = time.monotonic() + seconds
        else:
            self._timer = loop.call_later(seconds, self.call.interrupt, Interruption.TIMEOUT)

    def _look(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.call.interrupt(Interruption.TIMEOUT)

    # Reporting what it says

    def _hear(self) -> None:
        """Make events of what the task has just said, and write it if this thread may."""
        with self._lock:
            said = self._monotonic(self.speaker.collect())
            before = self._reported
            changed = said.messages or said.target != before.target or said.progress != before.progress
            if self._ended or not changed:  # a thread that the task has left behind speaks on
                return
            messages = self._rows(said.messages)
            seq = before.seq + len(messages) + SEQ_STATE
            now = State(self.info.uuid, seq, self.info.attempt, said.target, said.progress)
            self._add(self._report(now, messages))
            self._said += messages
            self._unwritten += messages
            self._reports += 1
        if threading.get_ident() == self._thread and not _is_on_a_loop() and self._is_due():
            self._write()

    def _is_due(self) -> bool:
        if self._reports > WRITTEN_AT_ONCE:
            now = time.monotonic()
            if now < self._next_write:
                return False
            self._next_write = now + settings.event_interval
        return True

    def _write(self) -> None:
        with self._lock:
            now, messages, self._unwritten = self._reported, self._unwritten, []
        said = partial(runs.record, seq=now.seq, target=now.target, progress=now.progress, messages=messages)
        try:
            held = _write_together(partial(said, self.info))
        except DatabaseError:  # an error of the task's own has broken the transaction: the end of the attempt looks
            with self._lock:
                self._unwritten = messages + self._unwritten
            return
        if held:
            self._publish()
        else:
            self.call.interrupt(Interruption.LOST)

    def _finish(self, outcome: Outcome) -> bool:
        with self._lock:
            self._ended = True
            self.speaker.release()
            said = self._monotonic(self.speaker.collect())
            messages = self._rows(said.messages)
        seq = self._reported.seq + len(messages) + SEQ_STATE
        last = [*self._unwritten, *messages]

        def end(outcome: Outcome) -> TaskInfo | None:
            return runs.finish(self.info, outcome, seq=seq, **self._numbers(said), messages=last)

        try:
            final = _write_together(partial(end, _here(outcome)))
        except Exception as error:  # noqa: BLE001 - no error may leave the run `running`
            final = _write_together(partial(end, self.call.stumble(error)))
        if final is None:
            logger.warning(
                "Run %s is no longer held by attempt %d: its outcome is dropped.", self.info.uuid, self.info.attempt
            )
            return False
        self._add(self._report(final, messages))
        self._publish()
        return not final.is_final

    def _add(self, report: Report) -> None:
        self.events += report.events
        if self._published:
            self._unpublished.append(report)

    def _publish(self) -> None:
        """Tell the followers what is written, once it is committed."""
        with self._lock:
            reports, self._unpublished = self._unpublished, []
        if reports:
            told = [event for report in reports for event in report.events]
            report = reports[-1]._replace(since=reports[0].since, events=told)
            tell = partial(events.publish_from_thread, self.info.uuid, report)
            transaction.on_commit(tell, using=router.db_for_write(TaskInfo))


def _here(outcome: Outcome) -> Outcome:
    """The outcome where nobody else could take the run."""
    if outcome.refused:
        return Outcome(Status.FAILED, error=outcome.error)
    return outcome._replace(goes_on=True)


def _is_on_a_loop() -> bool:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False


def _write_together(write: Callable[[], T]) -> T:
    with transaction.atomic(router.db_for_write(TaskInfo)):
        return write()
