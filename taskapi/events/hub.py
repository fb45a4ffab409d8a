"""One hub for each event loop: it hears the reports of all runs that are followed there, and passes them on.

Events may be lost. A subscription reads the row if a report shows that one before it was missed. The last event of a
run has no later one that could show this. So the hub looks at the rows of all followed runs every few seconds, at many
in one query.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import Context
from math import inf
from typing import NamedTuple, Protocol
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from taskapi.backends.attendance import PATIENCE, has_worker
from taskapi.conf import settings
from taskapi.events import Feed, get_events
from taskapi.models import TaskInfo
from taskapi.protocol import Report
from taskapi.protocol.states import Status
from taskapi.store.database import in_database
from taskapi.store.loops import one_per_loop

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 1.0  # seconds that a new subscription waits until its run is followed
WATCH_INTERVAL = 3.0  # seconds between two looks at the rows of the runs that are followed
WATCH_PAGE = 500  # runs in one query of the watch
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries while events cannot be heard; doubling


class Row(NamedTuple):
    """What the watch sees of a run."""

    seq: int
    status: str
    cancel_requested: bool


class Follower(Protocol):
    """What is told of one run: a subscription, or what waits for the run."""

    uuid: UUID

    def knows(self, row: Row) -> bool:
        """Whether it has nothing to tell of this row that it has not told."""

    def hear(self, report: Report, characters: int) -> None:
        """Take a report of the run, which has so many characters of text."""

    def catch_up(self) -> None:
        """Look at the row: something was missed, or may have been."""

    def stop(self) -> None:
        """Hear nothing more."""


class Hub:
    """The followers of one event loop. One feed of events serves them all.

    It lives while it is in use (`open` and `close` count its users). No follower waits for events that are known to
    be away: the watch tells followers what happens, and follows their runs when events are heard again.
    """

    def __init__(self) -> None:
        self._followers: dict[UUID, set[Follower]] = {}
        self._joined: dict[UUID, float] = {}  # the runs that the feed follows, and since when
        self._feed: Feed | None = None
        self._connected = asyncio.Event()
        self._away = False  # the last call of the feed failed
        self._membership = asyncio.Lock()  # one change of `_joined` at a time
        self._users = 0
        self._chores: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Count one user more."""
        self._users += 1
        if not self._chores:
            create_task = asyncio.get_running_loop().create_task
            self._away = False
            # Not in the context of the request that comes first: they outlive it, and its thread.
            self._chores = [create_task(chore(), context=Context()) for chore in (self._receive, self._watch)]

    async def close(self) -> None:
        """Count one user less. After the last one the hub ends."""
        self._users -= 1
        try:
            if self._users == 0 and self._leaving:  # it needs the feed
                await asyncio.wait(self._leaving, timeout=CONNECT_TIMEOUT)
        finally:
            if self._users == 0:  # it was not opened again meanwhile
                chores, self._chores = self._chores, []
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, *self._leaving, return_exceptions=True)

    async def add(self, follower: Follower) -> None:
        """Let it hear of its run from now on. Returns once its run is followed, or if events are known to be away."""
        self._followers.setdefault(follower.uuid, set()).add(follower)
        if self._away:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):  # wait_for can lose a cancellation, before Python 3.12
                await self._connected.wait()
                await self._join(follower.uuid)
        except TimeoutError:
            self._away = True

    def remove(self, follower: Follower) -> None:
        """Stop it: it hears nothing more, and sends nothing more."""
        follower.stop()
        followers = self._followers.get(follower.uuid, set())
        followers.discard(follower)
        if not followers and self._followers.pop(follower.uuid, None) is not None:
            leaving = asyncio.get_running_loop().create_task(self._leave(follower.uuid))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _join(self, uuid: UUID) -> bool:
        """Let the feed follow the run; False if it cannot."""
        async with self._membership:
            feed = self._feed
            if feed is None:
                return False
            now = asyncio.get_running_loop().time()
            joined_at = self._joined.get(uuid)
            lasts = joined_at is not None and now < joined_at + feed.refresh_after
            if lasts or uuid not in self._followers:
                return True
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await feed.follow(uuid)
            except Exception as error:  # noqa: BLE001 - each kind of events has errors of its own
                logger.warning(
                    "Events of run %s cannot be heard (%r); this is tried again in a few seconds, and until then its "
                    "followers are told what its row says.",
                    uuid,
                    error,
                )
                self._away = True
                return False
            self._away = False
            if self._feed is feed:  # else it has broken meanwhile, and the next feed does not follow the run yet
                self._joined[uuid] = now
            return True

    async def _join_all(self) -> None:
        """Let the feed follow all runs that have followers, up to the first that it cannot follow."""
        for uuid in list(self._followers):
            if not await self._join(uuid):
                return

    async def _leave(self, uuid: UUID) -> None:
        async with self._membership:
            if uuid in self._followers or uuid not in self._joined or self._feed is None:
                return
            del self._joined[uuid]
            with suppress(Exception):  # if it still hears of the run, nobody gets that
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._feed.unfollow(uuid)

    async def _receive(self) -> None:
        """Pass on reports for as long as the hub lives; a feed that breaks is replaced."""
        pause = FIRST_PAUSE
        while True:
            feed = None
            try:
                feed = await get_events().connect()
                self._connect(feed)
                await self._join_all()
                for uuid in list(self._followers):
                    self._catch_up(uuid)
                while True:
                    self._take(*await feed.receive())
                    pause = FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - each kind of events has errors of its own
                logger.warning(
                    "Events cannot be heard (%r); the next try is in %.1f s, and until then followers are told what "
                    "the rows of their runs say.",
                    error,
                    pause,
                )
                self._away = True
            finally:
                if feed is not None:
                    feed.close()
                if self._feed is feed:  # else the hub was opened again meanwhile, and has another
                    self._connect(None)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _connect(self, feed: Feed | None) -> None:
        self._feed = feed
        self._joined.clear()
        if feed is None:
            self._connected.clear()
        else:
            self._connected.set()
            self._away = False

    def _take(self, uuid: UUID, report: Report) -> None:
        followers = self._followers.get(uuid)
        if followers:
            report = report.within(settings.sent_frame_bytes)  # the limit of the publisher may be another
            characters = report.characters  # once for all followers
            for follower in followers:
                follower.hear(report, characters)

    async def _watch(self) -> None:
        """Look at the rows of all runs that are followed, every few seconds."""
        while True:
            refresh_after = inf if self._feed is None else self._feed.refresh_after
            await asyncio.sleep(min(WATCH_INTERVAL, refresh_after))
            try:
                followed = list(self._followers)
                for first in range(0, len(followed), WATCH_PAGE):
                    page = followed[first : first + WATCH_PAGE]
                    rows = await in_database(_read_rows, page)
                    for uuid in page:
                        self._catch_up(uuid, rows.get(uuid))
                    await _look_for_workers([uuid for uuid, row in rows.items() if row.seq == 0])
            except Exception as error:  # noqa: BLE001 - the database is away; the next look is in a few seconds
                logger.warning(
                    "The rows of followed runs could not be looked at; the next look is in %g s: %r",
                    WATCH_INTERVAL,
                    error,
                )
            await self._join_all()

    def _catch_up(self, uuid: UUID, row: Row | None = None) -> None:
        """Let the followers of the run that do not know this of it read its row; all of them without `row`."""
        for follower in self._followers.get(uuid, ()):
            if row is None or not follower.knows(row):
                follower.catch_up()


def _read_rows(uuids: list[UUID]) -> dict[UUID, Row]:
    found = TaskInfo.rows().filter(uuid__in=uuids).order_by().values_list("uuid", *Row._fields)
    return {uuid: Row(*values) for uuid, *values in found}


async def _look_for_workers(unbegun: list[UUID]) -> None:
    """Have it logged if no worker takes the queues of runs that have never begun, and could have seconds ago."""
    if unbegun:
        for queue in await in_database(_read_queues, unbegun):
            await asyncio.to_thread(has_worker, queue)


def _read_queues(uuids: list[UUID]) -> list[str]:
    """The queues in which any of these runs waits for long (as of `waits_long`)."""
    limit = timezone.now() - PATIENCE
    waiting = TaskInfo.rows().filter(uuid__in=uuids, status=Status.PENDING.value, created__lt=limit)
    due = waiting.filter(Q(run_at=None) | Q(run_at__lt=limit))
    return list(due.order_by().values_list("queue", flat=True).distinct())


def get_hub() -> Hub:
    """The hub of the running event loop."""
    return one_per_loop(Hub)
