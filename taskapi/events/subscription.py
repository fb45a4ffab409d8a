"""How a run is followed: the row and the reports become one ordered stream of events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from taskapi import protocol
from taskapi.events.hub import Row
from taskapi.models import TaskInfo
from taskapi.protocol import Message, Report, Snapshot, State
from taskapi.store.database import in_database
from taskapi.store.messages import FIRST_PAGE, LAST_PAGE, read_messages

logger = logging.getLogger(__name__)

MOST_REPORTS, MOST_CHARACTERS = 1_000, 2**20  # of reports that wait for one follower


class Subscription:
    """One follower of one run.

    It has one writer, a task. Only the writer sends, and only it reads the row, so everything is in order. Others leave
    something for the writer and wake it. Once a run has ended, so has its subscription.
    """

    def __init__(
        self, uuid: UUID, send: Callable[[str], Awaitable[None]], on_end: Callable[[Subscription], object]
    ) -> None:
        self.uuid = uuid
        self.seq = -1  # of the state that the follower knows
        self.known = 0  # messages that the follower knows
        self.ended = False
        self._send = send
        self._on_end = on_end
        self._reports: deque[tuple[Report, int]] = deque()  # each with its number of characters
        self._characters = 0  # of the reports that wait
        self._behind = False  # the row has to be read, whatever the reports say
        self._woken = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def start(self, info: TaskInfo, snapshot: Snapshot) -> None:
        """Send the snapshot, which shows the run as it is in `info`; what has happened since then follows."""
        self.seq, self.known = snapshot.seq, snapshot.known
        await self._send(snapshot.text)
        if self.known < info.message_count:  # the frame had no room for the others: they are in the row
            self.catch_up()
        elif info.is_final:  # the snapshot shows the end, and `finished` comes all the same
            await self._send(protocol.finished_event(info).text)
            self.ended = True
            return
        self._writer = asyncio.get_running_loop().create_task(self._write())

    def stop(self) -> None:
        """Send nothing more."""
        self.ended = True
        if self._writer is not None:
            self._writer.cancel()

    def knows(self, row: Row) -> bool:
        """Whether nothing has to be told of this row any more: no event is about a request to stop."""
        return self.seq >= row.seq

    def hear(self, report: Report, characters: int) -> None:
        """Take a report of the run. If too much waits, all of it is dropped, and the row is read instead."""
        self._characters += characters
        self._reports.append((report, characters))
        if len(self._reports) > MOST_REPORTS or (self._characters > MOST_CHARACTERS and len(self._reports) > 1):
            self._reports.clear()
            self._characters = 0
            self._behind = True
        self._woken.set()

    def catch_up(self) -> None:
        """Read the row, and tell what no report has told."""
        self._behind = True
        self._woken.set()

    async def _write(self) -> None:
        while not self.ended:
            await self._woken.wait()
            self._woken.clear()
            try:
                while (self._reports or self._behind) and not self.ended:
                    await self._write_next()
            except Exception as error:  # noqa: BLE001 - the database is away, for example: the watch wakes it again
                self._behind = True
                logger.warning(
                    "A follower of run %s could not be told; the next try is in a few seconds: %r", self.uuid, error
                )
        self._on_end(self)

    async def _write_next(self) -> None:
        if self._behind:
            self._behind = False
            await self._read_row()
            return
        report, _ = self._reports[0]
        if report.since > self.seq:  # something before this report was missed
            await self._read_row()
        if not self._reports or self._reports[0][0] is not report:  # it was dropped meanwhile: the row is read again
            return
        _, characters = self._reports.popleft()
        self._characters -= characters
        if report.since <= self.seq < report.seq and not self.ended:
            for event in report.events:
                if event.seq > self.seq:
                    await self._send(event.text)
                    self.seq = event.seq  # not before: what could not be sent is told later
            self.seq, self.known = report.seq, report.known
            self.ended = report.finished

    async def _read_row(self) -> None:
        """Tell what changed in the row since the last event, in the events that would have told it."""
        try:
            info, messages = await in_database(_read_changes, self.uuid, self.known)
            if info.is_final and not info.is_loaded("outputs"):
                await asyncio.to_thread(info.load, "outputs")
            messages = await self._tell_pages(info, messages)
        except TaskInfo.DoesNotExist:
            gone = protocol.reply("error", None, uuid=str(self.uuid), code="not_found", detail="Not found.")
            await self._send(protocol.encode(gone))
            self.ended = True
            return
        await self._tell(info, messages)
        self.seq, self.known = max(self.seq, info.seq), info.message_count
        self.ended = self.ended or info.is_final

    async def _tell_pages(self, info: TaskInfo, page: list[Message]) -> list[Message]:
        """Tell all messages that `info` counts but the last page, which is returned; `page` comes next."""
        size = FIRST_PAGE
        while self.known + len(page) < info.message_count:
            if page:
                last = page[-1]
                await self._tell(State(self.uuid, last.seq, last.attempt), page)
                self.known = last.index + 1
            page = await in_database(read_messages, info, self.known, size)
            if not page:  # they were deleted meanwhile, with their run
                raise TaskInfo.DoesNotExist
            size = min(2 * len(page), LAST_PAGE)
        return page

    async def _tell(self, now: State | TaskInfo, messages: Iterable[Message]) -> None:
        for event in protocol.changes(State(self.uuid, self.seq), now, messages):
            await self._send(event.text)
            self.seq = event.seq  # not before: what could not be sent is told later


def _read_changes(uuid: UUID, known: int) -> tuple[TaskInfo, list[Message]]:
    info = TaskInfo.rows().get(uuid=uuid)
    return info, read_messages(info, known)
