"""A reader of a run's stream that connects again until the run has finished, as an EventSource does."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx

from tests.faults.follower import Follower
from tests.support.sse import stream_of


class Reader(Follower):
    """As a `Follower`, over server-sent events: it resumes by the id of the last event that it has read."""

    last_id = ""

    async def _follow_once(self) -> bool:
        with suppress(OSError, httpx.HTTPError, AssertionError):  # of the last kind: the server answers no stream
            async with self._client() as client, stream_of(client, str(self.uuid), headers=self._resume()) as stream:
                self.connections += 1
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

    def _client(self) -> httpx.AsyncClient:
        server = self.url().replace("ws", "http", 1).removesuffix("/tasks/ws/")
        return httpx.AsyncClient(base_url=server, timeout=httpx.Timeout(10, read=None))

    def _resume(self) -> dict[str, str]:
        return {"Last-Event-ID": self.last_id} if self.last_id else {}


class Waiter:
    """Waits for changes of a run, again and again, until it has finished: a client that only knows `Prefer: wait`."""

    def __init__(self, url: str, uuid: str) -> None:
        self.url = url
        self.uuid = uuid
        self.messages: list[Any] = []
        self.states: list[tuple[str, dict[str, Any]]] = []  # each with its tag
        self.refused = 0
        self.begun = asyncio.Event()

    async def follow(self, limit: float = 60.0) -> dict[str, Any]:
        """The run as it ended."""
        async with asyncio.timeout(limit), httpx.AsyncClient(base_url=self.url, timeout=limit) as client:
            while True:
                run = await self._next(client)
                if run and run["finished"]:
                    return run

    async def _next(self, client: httpx.AsyncClient) -> dict[str, Any] | None:
        known = {"If-None-Match": self.states[-1][0], "Prefer": "wait=30"} if self.states else {}
        try:
            answer = await client.get(f"/tasks/{self.uuid}/?after={len(self.messages)}", headers=known)
        except httpx.TransportError:
            answer = None
        if answer is None or answer.status_code == 503:
            self.refused += 1
            await asyncio.sleep(0.1)
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
