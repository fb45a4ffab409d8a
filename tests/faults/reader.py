"""Followers without a WebSocket: one reads a stream of events, the other one waits for each change."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from tests.faults.follower import PAUSE, Follower
from tests.support.sse import Stream

SILENCE = 40.0  # seconds: a stream has a heartbeat every 15


class Reader(Follower):
    """As a `Follower`, over server-sent events: it resumes by the id of the last event that it has read."""

    def __init__(self, url: Callable[[], str], uuid: str | None = None) -> None:
        super().__init__(url, uuid)
        self.last_id = ""

    def cut(self) -> None:
        if self.connection is not None:
            with suppress(OSError):  # it has just been closed
                self.connection.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def _follow_once(self) -> bool:
        url = self.url()
        server = url.replace("ws", "http", 1).removesuffix("/tasks/ws/")
        known = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with suppress(OSError, httpx.HTTPError):
            async with (
                httpx.AsyncClient(base_url=server, timeout=httpx.Timeout(10, read=SILENCE)) as client,
                client.stream("GET", f"/tasks/{self.uuid}/events/", headers=known) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    self.refusals.append(json.loads(await response.aread()))
                    return False
                self.connection = response
                self.connections += 1
                self.servers.add(url)
                return await self._read_on(Stream(response))
        return False

    async def _read_on(self, stream: Stream) -> bool:
        """Read to the end; False if the run goes on."""
        try:
            while (frame := await stream.receive()) is not None:
                if frame["type"] == "error":
                    self.refusals.append(frame)
                    return False
                self._take(await self._read(json.dumps(frame)))
                self.last_id = stream.ids[-1]
                if frame["type"] == "finished":
                    assert await stream.receive() is None, "something follows `finished`"
                    return True
            return False
        finally:
            self.connection = None


class Waiter:
    """Waits for changes of a run, again and again, until it has finished: a client that only knows `Prefer: wait`."""

    def __init__(self, url: Callable[[], str], uuid: str) -> None:
        self.url = url  # of a server
        self.uuid = uuid
        self.messages: list[Any] = []
        self.states: list[tuple[str, dict[str, Any]]] = []  # each with its tag
        self.refused = 0
        self.errors: list[tuple[float, httpx.Response]] = []  # answers of 500 and above, and when they came
        self.begun = asyncio.Event()

    async def follow(self, limit: float = 60.0) -> dict[str, Any]:
        """The run as it ended."""
        async with asyncio.timeout(limit), httpx.AsyncClient(timeout=limit) as client:
            while True:
                run = await self._next(client)
                if run and run["finished"]:
                    return run

    async def _next(self, client: httpx.AsyncClient) -> dict[str, Any] | None:
        known = {"If-None-Match": self.states[-1][0], "Prefer": "wait=30"} if self.states else {}
        path = f"/tasks/{self.uuid}/?after={len(self.messages)}"
        try:
            answer = await client.get(self.url() + path, headers=known)
        except httpx.TransportError:
            answer = None
        if answer is None or answer.status_code >= 500:
            self.refused += 1
            if answer is not None:
                self.errors.append((time.time(), answer))  # it was asked for long before
            await asyncio.sleep(PAUSE)
            return None
        if answer.status_code == 304:
            return None
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()
        self.states.append((answer.headers["ETag"], run))
        self.messages += run["messages"]
        self.begun.set()
        return run

    def check(self, run: dict[str, Any]) -> None:
        """Check what it has seen against the finished run, as REST shows it."""
        assert self.messages == run["messages"]
        tags = [tag for tag, _ in self.states]
        assert len(set(tags)) == len(tags), "each answer was news"
        seqs = [state["seq"] for _, state in self.states]
        assert seqs == sorted(seqs)
        assert {**self.states[-1][1], "messages": []} == {**run, "messages": []}
