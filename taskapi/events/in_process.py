"""Events within one process, without a server: for tests, and for backends that execute runs where they are served."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Generic, TypeVar
from uuid import UUID

from taskapi.events.port import Events, Feed
from taskapi.protocol import Report
from taskapi.protocol.states import Execution

T = TypeVar("T")

MOST_WAITING = 10_000  # reports, or requests to stop, for one reader; what comes on top of them is lost


class InProcessEvents(Events):
    """Readers may be on any event loop of the process, and what they hear may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: defaultdict[UUID, set[InProcessFeed]] = defaultdict(set)
        self._listeners: set[_Inbox[Execution]] = set()

    async def publish(self, uuid: UUID, report: Report) -> bool:
        self.publish_from_thread(uuid, report)
        return True

    def publish_from_thread(self, uuid: UUID, report: Report) -> None:
        with self._lock:
            feeds = list(self._feeds.get(uuid, ()))
        for feed in feeds:
            feed.inbox.put((uuid, report))

    async def connect(self) -> InProcessFeed:
        return InProcessFeed(self)

    def tell_workers(self, uuid: UUID, attempt: int) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put((uuid, attempt))

    async def cancellations(self) -> AsyncIterator[Execution]:
        inbox: _Inbox[Execution] = _Inbox()
        with self._lock:
            self._listeners.add(inbox)
        try:
            while True:
                yield await inbox.get()
        finally:
            with self._lock:
                self._listeners.discard(inbox)

    def join(self, uuid: UUID, feed: InProcessFeed) -> None:
        with self._lock:
            self._feeds[uuid].add(feed)

    def leave(self, uuid: UUID, feed: InProcessFeed) -> None:
        with self._lock:
            feeds = self._feeds[uuid]
            feeds.discard(feed)
            if not feeds:
                del self._feeds[uuid]


class InProcessFeed(Feed):
    def __init__(self, events: InProcessEvents) -> None:
        self.inbox: _Inbox[tuple[UUID, Report]] = _Inbox()
        self._events = events
        self._followed: set[UUID] = set()

    async def follow(self, uuid: UUID) -> None:
        self._followed.add(uuid)
        self._events.join(uuid, self)

    async def unfollow(self, uuid: UUID) -> None:
        self._followed.discard(uuid)
        self._events.leave(uuid, self)

    async def receive(self) -> tuple[UUID, Report]:
        return await self.inbox.get()

    def close(self) -> None:
        for uuid in self._followed:
            self._events.leave(uuid, self)
        self._followed.clear()


class _Inbox(Generic[T]):
    """What waits for a reader on this event loop; any thread may put something in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[T] = asyncio.Queue(MOST_WAITING)

    def put(self, item: T) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, item)
        except RuntimeError:  # the loop is closed, and its reader is gone
            return

    def _put(self, item: T) -> None:
        if not self._waiting.full():  # else it is lost, as events may be
            self._waiting.put_nowait(item)

    async def get(self) -> T:
        return await self._waiting.get()
