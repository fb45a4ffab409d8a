"""A reader of server-sent events over a real connection."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

LIMIT = 100.0  # seconds for each wait


class Stream:
    """An open stream. `frames` are the data of its events so far, and `ids` their ids."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.frames: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.retry: int | None = None
        self.comments = 0
        self._lines = response.aiter_lines()  # splits where the format does not, but no JSON of ours has such a place

    async def receive(self) -> dict[str, Any] | None:
        """The next event; None if the stream has ended."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                fields[name] = value
            elif "data" in fields:
                frame: dict[str, Any] = json.loads(fields["data"])
                assert fields["event"] == frame["type"]
                self.frames.append(frame)
                self.ids.append(fields["id"])
                return frame
            elif "retry" in fields:
                self.retry = int(fields.pop("retry"))
        return None

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All frames up to the first one of that type."""
        while not any(frame["type"] == kind for frame in self.frames):
            assert await self.receive(), f"The stream has ended before {kind!r}: {self.frames}"
        return self.frames

    async def to_the_end(self) -> list[dict[str, Any]]:
        """All frames, once the server has ended the stream."""
        while await self.receive():
            pass
        return self.frames


@asynccontextmanager
async def open_stream(url: str, uuid: str, query: str = "", **options: Any) -> AsyncIterator[Stream]:
    """The events of a run. `url` is that of the server, and options are those of httpx."""
    async with client_of(url) as client, stream_of(client, uuid, query, **options) as stream:
        yield stream


def client_of(url: str) -> httpx.AsyncClient:
    """A client with as many connections as it is asked for."""
    return httpx.AsyncClient(base_url=url, timeout=LIMIT, limits=httpx.Limits(max_connections=None))


@asynccontextmanager
async def stream_of(client: httpx.AsyncClient, uuid: str, query: str = "", **options: Any) -> AsyncIterator[Stream]:
    """As `open_stream`, of a client that is there already."""
    async with client.stream("GET", f"/tasks/{uuid}/events/{query}", **options) as response:
        assert response.status_code == 200, await response.aread()
        yield Stream(response)
