"""A proxy between pages and the storm's web servers. A stranger may answer in place of the servers."""

import asyncio
import random
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Self

CHUNK = 65536
PORTAL = b"<!doctype html><title>Welcome</title><p>Please accept the terms of the hotel."
STRANGERS = {
    "portal": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(PORTAL), PORTAL),
    "reloading": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 10\r\nConnection: close"
    b"\r\n\r\nno backend",
}


class Road:
    """Passes each connection on to one of the servers; while it is blocked, it gives a stranger's answer instead."""

    def __init__(self, ports: Callable[[], Collection[int]]) -> None:
        self.ports = ports
        self.answers = 0  # of strangers
        self._stranger: bytes | None = None
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def block(self, stranger: str) -> None:
        """Cut all connections, and give this stranger's answer to new ones."""
        self._stranger = STRANGERS[stranger]
        self._cut()

    def open(self) -> None:
        self._stranger = None

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await (self._pass_on if self._stranger is None else self._answer)(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self._stranger is not None:
            self.answers += 1
            writer.write(self._stranger)
            await writer.drain()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = random.choice(list(self.ports()))  # noqa: S311 - no secret
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        finally:
            server_writer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass everything on until the source ends; then close the sink, which ends the other direction too."""
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()
