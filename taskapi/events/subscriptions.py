"""How a run is followed: from the row and the reports to one ordered stream of events.

The reports of the channel layer are hints, which may be lost. What a subscriber gets comes from the row
wherever a report shows that one before it was missed; and because nothing may follow the report that was
lost, a watch looks at the rows themselves every few seconds, all of a process's in one query.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models.functions import Length

from taskapi import events, protocol
from taskapi.conf import settings
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_PROGRESS, SEQ_STATE, SEQ_STATUS, SEQ_TARGET, Event, First, Message, Report
from taskapi.protocol.states import Status
from taskapi.store.database import in_database
from taskapi.store.loops import one_per_loop

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 1.0  # seconds that a new subscription waits for the channel layer
WATCH_INTERVAL = 3.0  # seconds between two looks at the rows of the runs that are followed
WATCH_PAGE = 500  # runs in one query of the watch
MOST_REPORTS, MOST_HELD = 1_000, 2**20  # reports, and characters of them, that wait for one follower
FIRST_PAGE, LAST_PAGE = 50, 800  # messages that are read at once; doubling
SHOWN = 10_000  # messages in a first frame
PAGE_BYTES = 256 * 1024  # of messages that are read at once, unless it is one alone
ESCAPES = 3  # how much longer JSON is at most where it is written in ASCII, as in the database
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries while the channel layer is away; doubling


class Subscription:
    """One follower of one run.

    It has one writer, a task that alone sends and reads the row, so that everything is in order: whoever has
    something for it leaves it and wakes the writer. Once a run has ended, so has its subscription.
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
        self._reports: deque[tuple[Report, int]] = deque()  # each with how much it holds
        self._held = 0
        self._behind = False  # the row has to be read, whatever the reports say
        self._woken = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def start(self, info: TaskInfo, first: First) -> None:
        """Send the frame that shows the run as it is in `info`; whatever has happened since follows."""
        self.seq, self.known = first.seq, first.known
        await self._send(first.text)
        if self.known < info.message_count:  # what the frame had no room for is in the row
            self.catch_up()
        elif info.is_final:
            await self._finish(info)
            return
        self._writer = asyncio.get_running_loop().create_task(self._write())

    def stop(self) -> None:
        """Send nothing more."""
        self.ended = True
        if self._writer is not None:
            self._writer.cancel()

    def hear(self, report: Report) -> None:
        """Take a report of the channel layer. More than a few that wait are forgotten: then the row is read."""
        size = sum(len(event.text) for event in report.events)
        self._held += size
        self._reports.append((report, size))
        if len(self._reports) > MOST_REPORTS or (self._held > MOST_HELD and len(self._reports) > 1):
            self._reports.clear()
            self._held = 0
            self._behind = True
        self._woken.set()

    def catch_up(self) -> None:
        """Find out what the row says and no report has."""
        self._behind = True
        self._woken.set()

    async def _write(self) -> None:
        while not self.ended:
            await self._woken.wait()
            self._woken.clear()
            try:
                while (self._reports or self._behind) and not self.ended:
                    await self._write_next()
            except Exception as error:  # noqa: BLE001 - the database is away, say: the watch wakes it again
                self._behind = True
                logger.warning("A follower of run %s could not be told: %r", self.uuid, error)
        self._on_end(self)

    async def _write_next(self) -> None:
        if self._behind:
            self._behind = False
            await self._read_row()
            return
        report, _ = self._reports[0]
        if report.since > self.seq:  # something before this report was missed
            await self._read_row()
        if not self._reports or self._reports[0][0] is not report:  # forgotten meanwhile: the row is read again
            return
        _, size = self._reports.popleft()
        self._held -= size
        if report.since <= self.seq < report.seq and not self.ended:
            for event in report.events:
                await self._send_event(event)
            self.seq, self.known = report.seq, report.known
            self.ended = report.finished

    async def _send_event(self, event: Event) -> None:
        if event.seq > self.seq:
            await self._send(event.text)
            self.seq = event.seq  # and not before: what could not be sent is told later

    async def _read_row(self) -> None:
        """Tell what changed in the row since the last event, in the events that would have told it."""
        try:
            info, messages = await in_database(_read_changes, self.uuid, self.known)
            await self._send_messages(info, messages)
        except TaskInfo.DoesNotExist:
            await self._send_gone()
            return
        uuid, attempt, seq = info.uuid, info.attempt, info.seq
        if seq <= self.seq:
            return
        await self._send_beginning(attempt)
        if info.target is not None:
            await self._send_event(protocol.target_event(uuid, attempt, seq + SEQ_TARGET, info.target))
        if info.progress is not None:
            event = protocol.progress_event(uuid, attempt, seq + SEQ_PROGRESS, info.progress, info.target)
            await self._send_event(event)
        if info.is_final:
            await self._finish(info)
        elif info.status == Status.PENDING:
            await self._send_event(protocol.status_event(uuid, attempt, seq, info.status))
        self.seq = seq

    async def _send_messages(self, info: TaskInfo, page: list[Message]) -> None:
        """Tell the messages of `page`, which come next, and those that follow up to the `message_count` of `info`."""
        size = FIRST_PAGE
        while True:
            for row in page:
                await self._send_beginning(row.attempt)
                await self._send_event(protocol.message_event(info.uuid, row.attempt, row.seq, row.index, row.body))
                self.known = row.index + 1
            if self.ended or self.known >= info.message_count:
                return
            page = await in_database(read_messages, info, self.known, size)
            if not page:  # they were deleted meanwhile, with their run
                raise TaskInfo.DoesNotExist
            size = min(2 * len(page), LAST_PAGE)

    async def _send_gone(self) -> None:
        gone = protocol.reply("error", None, uuid=str(self.uuid), code="not_found", detail="Not found.")
        await self._send(protocol.encode(gone))
        self.ended = True

    async def _finish(self, info: TaskInfo) -> None:
        await self._send(protocol.finished_event(info).text)  # also where the snapshot was of the end
        self.ended = True

    async def _send_beginning(self, attempt: int) -> None:
        """Tell that the attempt began, to whom it is new: nothing of it comes before that."""
        if attempt > 0:
            seq = protocol.first_seq(attempt) + SEQ_STATE + SEQ_STATUS
            await self._send_event(protocol.status_event(self.uuid, attempt, seq, Status.RUNNING))


def _read_changes(uuid: UUID, known: int) -> tuple[TaskInfo, list[Message]]:
    info = TaskInfo.rows().get(uuid=uuid)
    return info, read_messages(info, known)


def read_messages(info: TaskInfo, known: int, most: int = FIRST_PAGE) -> list[Message]:
    """The next messages past the first `known`: one at least, where `info` counts more, and PAGE_BYTES at most.

    A run may have a million of them, and one may be as large as the memory: so their sizes are asked for first.
    One that no frame can hold comes without its body.
    """
    end = min(known + most, info.message_count)
    if end <= known:
        return []
    log = TaskMessage.objects.using(router.db_for_write(TaskMessage)).filter(run=info.pk, index__gte=known)
    log = log.order_by("index")
    total = 0
    for index, size in log.filter(index__lt=end).values_list("index", Length("body")):
        total += size or 0
        if index == known and total > ESCAPES * settings.sent_frame_bytes:
            without = log.filter(index=known).values_list("index", "attempt", "seq")
            return [Message(*row, protocol.OMITTED) for row in without]
        if index > known and total > PAGE_BYTES:
            end = index
            break
    rows = log.filter(index__lt=end).values_list("index", "attempt", "seq", "body")
    return [Message(*row) for row in rows]


class Hub:
    """The subscriptions of a process, on one event loop: one channel of the layer serves them all.

    It lives while sockets are open (`open` and `close` count them). Nobody waits for a layer that is known to be
    away: the watch tells followers what happens, and joins their groups when the layer is there again.
    """

    def __init__(self) -> None:
        self._followers: dict[UUID, set[Subscription]] = {}
        self._joined: dict[UUID, float] = {}  # the groups that the channel is in, and since when
        self._channel: str | None = None
        self._connected = asyncio.Event()
        self._away = False  # the layer, when it was last asked for something
        self._membership = asyncio.Lock()  # one change of groups at a time
        self._users = 0
        self._chores: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """A socket begins to use the hub."""
        self._users += 1
        if not self._chores:
            loop = asyncio.get_running_loop()
            self._away = False
            self._chores = [loop.create_task(self._receive()), loop.create_task(self._watch())]

    async def close(self) -> None:
        """A socket uses the hub no longer."""
        self._users -= 1
        try:
            if self._users == 0 and self._leaving:  # the groups, which takes the channel
                await asyncio.wait(self._leaving, timeout=CONNECT_TIMEOUT)
        finally:
            if self._users == 0:  # and no socket was opened meanwhile
                chores, self._chores = self._chores, []
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, *self._leaving, return_exceptions=True)

    async def add(self, subscription: Subscription) -> None:
        """Let it hear of its run from now on. Returns once the layer has taken it, or is known to be away."""
        self._followers.setdefault(subscription.uuid, set()).add(subscription)
        if self._away:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):  # wait_for can lose a cancellation, before Python 3.12
                await self._connected.wait()
                await self._join(subscription.uuid)
        except TimeoutError:
            self._away = True

    def remove(self, subscription: Subscription) -> None:
        """Let it hear no more, and send nothing more."""
        subscription.stop()
        followers = self._followers.get(subscription.uuid, set())
        followers.discard(subscription)
        if not followers and self._followers.pop(subscription.uuid, None) is not None:
            leaving = asyncio.get_running_loop().create_task(self._leave(subscription.uuid))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _join(self, uuid: UUID) -> bool:
        """Be in the run's group; False where the layer does not take it."""
        async with self._membership:
            channel = self._channel
            if channel is None:
                return False
            now = asyncio.get_running_loop().time()
            joined_at = self._joined.get(uuid)
            lasts = joined_at is not None and now < joined_at + events.rejoin_after()
            if lasts or uuid not in self._followers:
                return True
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await events.get_layer().group_add(events.group(uuid), channel)
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own; the watch tries again
                logger.warning("The channel layer is not there: %r", error)
                self._away = True
                return False
            self._away = False
            if self._channel == channel:  # and not another by now
                self._joined[uuid] = now
            return True

    async def _join_all(self) -> None:
        """Be in the groups of all runs that are followed, or in those before the first that the layer does not take."""
        for uuid in list(self._followers):
            if not await self._join(uuid):
                return

    async def _leave(self, uuid: UUID) -> None:
        async with self._membership:
            if uuid in self._followers or uuid not in self._joined or self._channel is None:
                return
            del self._joined[uuid]
            with suppress(Exception):  # what it still hears of the run goes nowhere
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await events.get_layer().group_discard(events.group(uuid), self._channel)

    async def _receive(self) -> None:
        """Pass on what the layer brings, for as long as the hub lives; a layer that is away comes back."""
        pause = FIRST_PAUSE
        while True:
            channel = None
            try:
                layer = events.get_layer()
                channel = await layer.new_channel()
                self._connect(channel)
                await self._join_all()
                for uuid in list(self._followers):
                    self._catch_up(uuid)
                while True:
                    self._take(await layer.receive(channel))
                    pause = FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own
                logger.warning("The channel layer is not there (%r); next try in %.1f s.", error, pause)
                self._away = True
                await events.reconnect(error)
            finally:
                if self._channel == channel:  # and not that of a hub which was opened again meanwhile
                    self._connect(None)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _connect(self, channel: str | None) -> None:
        self._channel = channel
        self._joined.clear()
        if channel is None:
            self._connected.clear()
        else:
            self._connected.set()
            self._away = False

    def _take(self, message: dict[str, Any]) -> None:
        try:
            uuid, report = events.read(message)
        except (LookupError, TypeError, ValueError):
            logger.warning("A message of the channel layer is not a report of this version: %.200r", message)
        else:
            self._dispatch(uuid, report.within(settings.sent_frame_bytes))  # a worker's limit may be another

    def _dispatch(self, uuid: UUID, report: Report) -> None:
        for subscription in self._followers.get(uuid, ()):
            subscription.hear(report)

    async def _watch(self) -> None:
        """Look at the rows of all runs that are followed, every few seconds: of many in one query."""
        while True:
            await asyncio.sleep(min(WATCH_INTERVAL, events.rejoin_after()))
            try:
                followed = list(self._followers)
                for first in range(0, len(followed), WATCH_PAGE):
                    page = followed[first : first + WATCH_PAGE]
                    seqs = await in_database(_read_seqs, page)
                    for uuid in page:
                        self._catch_up(uuid, seqs.get(uuid))
            except Exception as error:  # noqa: BLE001 - the database is away; the next look is in a few seconds
                logger.warning("Followed runs could not be looked at: %r", error)
            await self._join_all()

    def _catch_up(self, uuid: UUID, seq: int | None = None) -> None:
        """Bring the followers of the run up to date: those behind `seq`, or all (of a run that is gone, too)."""
        for subscription in self._followers.get(uuid, ()):
            if seq is None or subscription.seq < seq:
                subscription.catch_up()


def _read_seqs(uuids: list[UUID]) -> dict[UUID, int]:
    return dict(TaskInfo.rows().filter(uuid__in=uuids).order_by().values_list("uuid", "seq"))


def get_hub() -> Hub:
    """The hub of the running event loop."""
    return one_per_loop(Hub)
