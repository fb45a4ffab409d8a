"""A subscriber that comes back: what it was told of one run, over as many connections as it took."""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PAUSE = 0.1  # seconds between two connections
LIMIT = 60.0  # seconds

_refs = map(str, itertools.count())


class Follower:
    """Follows a run, given by its uuid, or started by the `run` frame of which `start` has the fields.

    `subscriptions` has a list of frames for each: `accepted` or `snapshot`, then the events that came.
    """

    def __init__(self, url: Callable[[], str], uuid: str | None = None, **start: Any) -> None:
        self.url = url
        self.uuid = uuid
        self.start = start
        self.known = 0  # messages
        self.subscriptions: list[list[dict[str, Any]]] = []
        self.refusals: list[dict[str, Any]] = []
        self.connections = 0
        self.servers: set[str] = set()  # the urls at which it subscribed
        self.connection: ClientConnection | None = None
        self.subscribed = asyncio.Event()

    async def follow(self, limit: float = LIMIT) -> None:
        """Return when the run has finished."""
        async with asyncio.timeout(limit):
            while not await self._follow_once():  # noqa: ASYNC110 - it waits for a server, and not for an event
                await asyncio.sleep(PAUSE)

    def cut(self) -> None:
        """Cut the connection, as a network does."""
        if self.connection is not None:
            self.connection.transport.abort()

    async def _follow_once(self) -> bool:
        """Follow over one connection; False where it broke."""
        try:
            url = self.url()
            async with connect(url, subprotocols=["taskapi.v1"], max_size=None) as connection:
                self.connection = connection
                self.connections += 1
                await self._send(connection)
                async for text in connection:
                    frame = json.loads(text)
                    if frame["type"] == "error":
                        self.refusals.append(frame)
                        return False
                    self._take(frame)
                    self.servers.add(url)
                    if frame["type"] == "finished":
                        await _nothing_follows(connection)
                        return True
        except (OSError, EOFError, WebSocketException):
            pass
        finally:
            self.connection = None
        return False

    async def _send(self, connection: ClientConnection) -> None:
        frame = {"ref": next(_refs), "after": self.known}
        if self.uuid is None:
            frame |= {"type": "run", **self.start}
        else:
            frame |= {"type": "subscribe", "uuid": self.uuid}
        await connection.send(json.dumps(frame))

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] in ("accepted", "snapshot"):
            self.uuid = frame["task"]["uuid"]
            self.known += len(frame["task"]["messages"])
            self.subscriptions.append([frame])
            self.subscribed.set()
            return
        if frame["type"] == "message":
            self.known += 1
        self.subscriptions[-1].append(frame)


async def _nothing_follows(connection: ClientConnection) -> None:
    """Whatever the server had to say before it read this ping would come before the pong."""
    await connection.send(json.dumps({"type": "ping"}))
    assert json.loads(await connection.recv()) == {"type": "pong"}
