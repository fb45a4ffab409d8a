"""How a run is followed: from the row and the reports to one ordered stream of events.

The reports of the channel layer are hints, which may be lost. What a subscriber gets comes from the row
wherever a report shows that one before it was missed; and because nothing may follow the report that was
lost, a watch looks at the rows themselves every few seconds, all of a process's in one query.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID
from weakref import WeakKeyDictionary

from taskapi import events, protocol
from taskapi.database import in_database
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_PROGRESS, SEQ_STATUS, SEQ_TARGET, Event, Report
from taskapi.states import Status

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 1.0  # seconds that a new subscription waits for the channel layer
WATCH_INTERVAL = 3.0  # seconds between two looks at the rows of the runs that are followed
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries while the channel layer is away; doubling


class Subscription:
    """One follower of one run.

    Reports that arrive while the row is read wait their turn; once a run has ended, so has its
    subscription.
    """

    def __init__(self, uuid: UUID, send: Callable[[str], Awaitable[None]]) -> None:
        self.uuid = uuid
        self.seq = -1  # of the last event sent
        self.known = 0  # messages sent, or known to the follower
        self.ended = False
        self._started = False
        self._send = send
        self._waiting: list[Report] = []
        self._busy = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None  # a reference, so that it is not collected

    async def start(self, info: TaskInfo, first_frame: str) -> None:
        """Send the frame that shows the run as it is in `info`, then whatever has happened since."""
        async with self._busy:
            self._started = True
            self.seq, self.known = info.seq, info.message_count
            await self._send(first_frame)
            if info.is_final:
                await self._finish(info)
        await self._pass_on()

    async def hear(self, report: Report) -> None:
        """Take a report of the channel layer. Returns soon: whoever has to read the row first does so by itself."""
        if self.ended:
            return
        if not self._started or self._waiting or self._busy.locked() or report.known > self.known:
            self._waiting.append(report)
            if self._started and not self._busy.locked():
                self._reading = asyncio.create_task(self._pass_on())
            return
        async with self._busy:
            await self._send_report(report)

    async def catch_up(self) -> None:
        """Send what the row says and no report has."""
        async with self._busy:
            if self._started and not self.ended:
                await self._read_row()
        await self._pass_on()

    async def _pass_on(self) -> None:
        while self._waiting and not self.ended and not self._busy.locked():
            async with self._busy:
                report = self._waiting.pop(0)
                if report.known > self.known:
                    await self._read_row()  # messages before this report were missed
                await self._send_report(report)

    async def _send_report(self, report: Report) -> None:
        last = report.events[-1].seq if report.events else -1
        if self.ended or last <= self.seq:
            return
        for event in report.events:
            if event.seq > self.seq:
                await self._send_event(event)
        self.known = max(self.known, report.known + report.messages)
        self.ended = report.finished

    async def _send_event(self, event: Event) -> None:
        self.seq = event.seq
        await self._send(event.text)

    async def _read_row(self) -> None:
        """Tell what changed in the row since the last event, in the events that would have told it."""
        read = await in_database(_read_changes, self.uuid, self.known)
        if read is None:
            return
        info, messages = read
        uuid, attempt, seq = info.uuid, info.attempt, info.seq
        for row in messages:
            if row.seq > self.seq:
                event = protocol.message_event(uuid, row.attempt, row.seq, row.index, row.body)
                await self._send_event(event)
        self.known = info.message_count
        if info.seq <= self.seq:
            return
        if info.status == Status.RUNNING and self.seq < protocol.first_seq(attempt):
            await self._send_event(protocol.status_event(uuid, attempt, seq + SEQ_STATUS, info.status))
        if info.target is not None:
            await self._send_event(protocol.target_event(uuid, attempt, seq + SEQ_TARGET, info.target))
        if info.progress is not None:
            event = protocol.progress_event(uuid, attempt, seq + SEQ_PROGRESS, info.progress, info.target)
            await self._send_event(event)
        if info.is_final:
            await self._finish(info)
        elif info.status == Status.PENDING:
            await self._send_event(protocol.status_event(uuid, attempt, seq, info.status))
        else:
            self.seq = seq

    async def _finish(self, info: TaskInfo) -> None:
        self.ended = True
        await self._send_event(protocol.finished_event(info))


def _read_changes(uuid: UUID, known: int) -> tuple[TaskInfo, list[TaskMessage]] | None:
    info = TaskInfo.objects.filter(uuid=uuid).first()
    if info is None:
        return None
    log = info.log.filter(index__gte=known, index__lt=info.message_count).order_by("index")
    return info, list(log) if info.message_count > known else []


class Hub:
    """The subscriptions of a process, on one event loop: one channel of the layer serves them all.

    It lives while sockets are open (`open` and `close` count them). Joining a group that the layer does not
    take, because it is away, is tried again by the watch.
    """

    def __init__(self) -> None:
        self._followers: dict[UUID, set[Subscription]] = {}
        self._joined: set[UUID] = set()  # the groups that the channel is in
        self._channel: str | None = None
        self._connected = asyncio.Event()
        self._membership = asyncio.Lock()  # one change of groups at a time
        self._users = 0
        self._chores: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """A socket begins to use the hub."""
        self._users += 1
        if self._users == 1:
            loop = asyncio.get_running_loop()
            self._chores = [loop.create_task(self._receive()), loop.create_task(self._watch())]

    async def close(self) -> None:
        """A socket uses the hub no longer."""
        self._users -= 1
        if self._users == 0:
            chores, self._chores = self._chores, []
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, *self._leaving, return_exceptions=True)
            self._disconnected()

    async def add(self, subscription: Subscription) -> None:
        """Let it hear of its run from now on. Returns once the layer has taken it, or is known to be away."""
        self._followers.setdefault(subscription.uuid, set()).add(subscription)
        if not self._connected.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._connected.wait(), CONNECT_TIMEOUT)
        await self._join(subscription.uuid)

    def remove(self, subscription: Subscription) -> None:
        """Let it hear no more."""
        followers = self._followers.get(subscription.uuid, set())
        followers.discard(subscription)
        if not followers and self._followers.pop(subscription.uuid, None) is not None:
            leaving = asyncio.get_running_loop().create_task(self._leave(subscription.uuid))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _join(self, uuid: UUID) -> bool:
        """Be in the run's group, where the layer is there."""
        async with self._membership:
            if uuid in self._joined or self._channel is None:
                return False
            try:
                await events.get_layer().group_add(events.group(uuid), self._channel)
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own; the watch tries again
                logger.warning("The channel layer is not there: %r", error)
                return False
            self._joined.add(uuid)
            return True

    async def _leave(self, uuid: UUID) -> None:
        async with self._membership:
            if uuid in self._followers or uuid not in self._joined or self._channel is None:
                return
            self._joined.discard(uuid)
            with suppress(Exception):  # what it still hears of the run goes nowhere
                await events.get_layer().group_discard(events.group(uuid), self._channel)

    async def _receive(self) -> None:
        """Pass on what the layer brings, for as long as the hub lives; a layer that is away comes back."""
        pause = FIRST_PAUSE
        while True:
            try:
                layer = events.get_layer()
                self._channel = await layer.new_channel()
                self._connected.set()
                for uuid in list(self._followers):
                    if await self._join(uuid):
                        await self._catch_up(uuid)
                while True:
                    await self._dispatch(*events.read(await layer.receive(self._channel)))
                    pause = FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - each layer has errors of its own
                logger.warning("The channel layer is not there (%r); next try in %.1f s.", error, pause)
            self._disconnected()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _disconnected(self) -> None:
        self._channel = None
        self._connected.clear()
        self._joined.clear()

    async def _dispatch(self, uuid: UUID, report: Report) -> None:
        for subscription in list(self._followers.get(uuid, ())):
            try:
                await subscription.hear(report)
            except Exception as error:  # noqa: BLE001 - a socket that is gone; its consumer cleans up
                logger.debug("A subscriber of run %s did not take an event: %s", uuid, error)
            if subscription.ended:
                self.remove(subscription)

    async def _watch(self) -> None:
        """Look at the rows of all runs that are followed, every few seconds, in one query."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            for uuid in list(self._followers):
                await self._join(uuid)
            try:
                seqs = await in_database(_read_seqs, list(self._followers))
                for uuid, seq in seqs:
                    await self._catch_up(uuid, seq)
            except Exception as error:  # noqa: BLE001 - the database is away; the next look is in a few seconds
                logger.warning("Followed runs could not be looked at: %r", error)

    async def _catch_up(self, uuid: UUID, seq: int | None = None) -> None:
        """Bring the followers of the run up to date: those behind `seq`, or all."""
        for subscription in list(self._followers.get(uuid, ())):
            if seq is None or subscription.seq < seq:
                await subscription.catch_up()
            if subscription.ended:
                self.remove(subscription)


def _read_seqs(uuids: list[UUID]) -> list[tuple[UUID, int]]:
    if not uuids:
        return []
    return list(TaskInfo.objects.filter(uuid__in=uuids).order_by().values_list("uuid", "seq"))


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def get_hub() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub()
    return hub
