"""HTTP for loopback: JSON requests and answers, one after another on a connection that stays open; and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

NOT_MODIFIED = 304


class Http:
    def __init__(self, port: int) -> None:
        self.port = port
        self.head: dict[str, str] = {}  # of the last answer, by names in lower case
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None, **fields: str) -> Any:
        """The JSON of the answer, None for 304; ConnectionError if its status is not 2xx. `fields`: of the head."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        try:
            writer.write(self._request(method, path, body, fields))
            status, self.head = await _head(reader)
            headers = self.head
            content = b"" if status == NOT_MODIFIED else await _body(reader, headers)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.close()  # what still arrives must not answer the next request
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status == NOT_MODIFIED:
            return None
        if not 200 <= status < 300:
            raise ConnectionError(f"{method} {path} was answered {status}: {content[:200]!r}")
        return json.loads(content)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def stream(self, path: str, begun: Callable[[], object]) -> bytes:
        """What a stream says until the server ends it. `begun` is called when it has said something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self._request("GET", path, None, {}))
            _, headers = await _head(reader)
            first = await _chunk(reader)
            begun()
            return first + await _body(reader, headers)
        finally:
            writer.close()

    def _request(self, method: str, path: str, body: Any, fields: Mapping[str, str]) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        also = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAccept: application/json\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n{also}\r\n"
        )
        return head.encode() + content


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = (line.split(":", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, value in headers}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    chunks = []
    while chunk := await _chunk(reader):
        chunks.append(chunk)
    return b"".join(chunks)


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk; empty after the last one."""
    chunk = await reader.readexactly(int(await reader.readline(), 16))
    await reader.readline()
    return chunk
