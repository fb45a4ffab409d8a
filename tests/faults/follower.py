"""A subscriber that comes back: what it was told of one run, over as many connections as it took."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PAUSE = 0.1  # seconds between two connections
LIMIT = 60.0  # seconds
CLOSED_AT_LOGOUT = 4401

_refs = map(str, itertools.count())


class Follower:
    """Follows a run, given by its uuid, or started by the `run` frame of which `start` has the fields.

    `subscriptions` has a list of frames for each: `accepted` or `snapshot`, then the events that came. What was left
    out of a frame, because it is too large for one, stands there as REST has it.
    """

    def __init__(
        self,
        url: Callable[[], str],
        uuid: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        reads_after: float = 0.0,
        **start: Any,
    ) -> None:
        self.url = url
        self.uuid = uuid
        self.headers = headers
        self.reads_after = reads_after  # seconds for which it reads nothing of a new subscription
        self.start = start
        self.known = 0  # messages
        self.subscriptions: list[list[dict[str, Any]]] = []
        self.refusals: list[dict[str, Any]] = []
        self.connections = 0
        self.heard = 0.0  # when the last frame came
        self.largest = 0  # bytes, of the frames that came
        self.fetched = 0  # parts that were left out of a frame
        self.servers: set[str] = set()  # the urls at which it subscribed
        self.connection: ClientConnection | None = None
        self.last: ClientConnection | None = None
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
            async with self._connect(url) as connection:
                self.connection = self.last = connection
                self.connections += 1
                await self._send(connection)
                async for text in connection:
                    frame = await self._read(text)
                    if frame["type"] == "error":
                        self.refusals.append(frame)
                        return False
                    self._take(frame)
                    self.servers.add(url)
                    if frame["type"] == "finished":
                        await _nothing_follows(connection)
                        return True
                    if frame["type"] in ("accepted", "snapshot"):
                        await asyncio.sleep(self.reads_after)
        except (OSError, EOFError, WebSocketException, httpx.HTTPError):
            pass
        finally:
            self.connection = None
        return False

    def _connect(self, url: str) -> connect:
        """A connection; little of it is read ahead, so that who does not read lets the server wait."""
        return connect(url, subprotocols=["taskapi.v1"], max_size=None, max_queue=1, additional_headers=self.headers)

    async def _read(self, text: str | bytes) -> dict[str, Any]:
        """The frame, with what was too large for it."""
        self.heard = time.time()
        self.largest = max(self.largest, len(text.encode() if isinstance(text, str) else text))
        frame: dict[str, Any] = json.loads(text)
        if frame["type"] == "message" and frame.pop("omitted", False):
            rest = await self._fetch(frame["uuid"], after=frame["index"])
            frame["message"] = rest["messages"][0]
            self.fetched += 1
        task = frame.get("task", {})
        if omitted := task.pop("omitted", []):
            rest = await self._fetch(task["uuid"])
            task |= {name: rest[name] for name in omitted}
            self.fetched += len(omitted)
        return frame

    async def _fetch(self, uuid: str, after: int = 0) -> dict[str, Any]:
        base = self.url().replace("ws", "http", 1).removesuffix("ws/")
        async with httpx.AsyncClient(timeout=LIMIT, headers=self.headers) as client:
            answer = await client.get(f"{base}{uuid}/?after={after}")
        return answer.raise_for_status().json()

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


class Visitor(Follower):
    """Follows a run of its own as somebody who is logged in, and logs out in the middle of it."""

    def __init__(self, url: Callable[[], str], **options: Any) -> None:
        super().__init__(url, **options)
        self.left: float | None = None  # when the server had logged it out
        self.ended: tuple[str, float] | None = None  # how it heard of that, and when

    async def follow(self, limit: float = LIMIT) -> None:
        """Return when it is no longer served, or the run has finished."""
        async with asyncio.timeout(limit):
            while self.ended is None:
                if await self._follow_once():
                    self.ended = "finished", time.time()
                else:
                    await asyncio.sleep(PAUSE)

    async def _follow_once(self) -> bool:
        refusals = len(self.refusals)
        try:
            return await super()._follow_once()
        finally:
            if self.last is not None and self.last.close_code == CLOSED_AT_LOGOUT:
                self.ended = "closed", time.time()
            elif any(refusal["code"] in ("not_found", "not_authenticated") for refusal in self.refusals[refusals:]):
                self.ended = "refused", time.time()


async def _nothing_follows(connection: ClientConnection) -> None:
    """Whatever the server had to say before it read this ping would come before the pong."""
    await connection.send(json.dumps({"type": "ping"}))
    assert json.loads(await connection.recv()) == {"type": "pong"}
