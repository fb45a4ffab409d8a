"""A subscriber that reconnects until its run has finished, and keeps every frame that it received."""

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
    """Follows a run: the one that `uuid` names, or one that it starts with a `run` frame (`start` has its fields).

    `subscriptions` has a list of frames for each subscription: `accepted` or `snapshot`, then the events. If a frame
    left out a part that was too large, the part is fetched by REST and put into the frame.
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
        self.reads_after = reads_after  # seconds before it reads on after a first frame
        self.start = start
        self.known = 0  # messages
        self.subscriptions: list[list[dict[str, Any]]] = []
        self.refusals: list[dict[str, Any]] = []
        self.connections = 0
        self.served_until = 0.0  # when the last connection ended on which it was subscribed
        self.largest = 0  # bytes of the largest frame
        self.fetched = 0  # parts that frames left out
        self.servers: set[str] = set()  # the urls at which it subscribed
        self.connection: Any = None  # while it is served
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
        """Follow over one connection; False if it broke."""
        served = False
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
                    served = True
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
            if served:
                self.served_until = time.time()
        return False

    def _connect(self, url: str) -> connect:
        """A connection that reads little ahead: if the follower does not read, the server has to wait."""
        return connect(url, subprotocols=["taskapi.v1"], max_size=None, max_queue=1, additional_headers=self.headers)

    async def _read(self, text: str | bytes) -> dict[str, Any]:
        """The frame, with the parts that were too large for it."""
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
    """Starts and follows a run as a logged-in user, who logs out while the run goes on."""

    def __init__(self, url: Callable[[], str], **options: Any) -> None:
        super().__init__(url, **options)
        self.asked: float | None = None  # when it asked the server to log it out
        self.left: float | None = None  # when the server had done so
        self.ended: tuple[str, float] | None = None  # how the following ended, and when

    async def follow(self, limit: float = LIMIT) -> None:
        """Return when the server serves it no more, or the run has finished."""
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
    """Send a ping and check that the pong is the next frame: replies keep the order of the frames."""
    await connection.send(json.dumps({"type": "ping"}))
    assert json.loads(await connection.recv()) == {"type": "pong"}
