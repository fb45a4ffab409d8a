"""A WebSocket for loopback that sends and receives texts, in a few microseconds a frame."""

from __future__ import annotations

import asyncio
import os
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Self

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA  # RFC 6455, 5.2
LAST = 0x80  # the bit of a message's last frame; servers here send only those
MASKED = 0x80
NO_MASK = bytes(4)  # a client has to mask its frames; a mask of zeros changes nothing
OPENING = 10.0  # seconds for the handshake


class WebSocket(asyncio.Protocol):
    """An open socket. `on_text` is called with each text that arrives, on the event loop."""

    def __init__(self, on_text: Callable[[bytes], None]) -> None:
        self.on_text = on_text
        self.closed = asyncio.get_running_loop().create_future()
        self.opened = asyncio.get_running_loop().create_future()
        self._received = bytearray()

    @classmethod
    async def connect(cls, port: int, path: str, on_text: Callable[[bytes], None]) -> Self:
        async with asyncio.timeout(OPENING):
            transport, socket = await asyncio.get_running_loop().create_connection(
                lambda: cls(on_text), "127.0.0.1", port
            )
            transport.write(_handshake(port, path))
            await socket.opened
        return socket

    def send(self, text: str) -> None:
        self._transport.write(_frame(TEXT, text.encode()))

    def close(self) -> None:
        self._transport.close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("The server closed the connection during the handshake."))
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.opened.done() and not self._shake_hands():
            return
        done = 0
        while (end := _end_of_frame(self._received, done)) is not None:
            self._take(*end)
            done = end[2]
        del self._received[:done]

    def _shake_hands(self) -> bool:
        head, found, _ = self._received.partition(b"\r\n\r\n")
        if not found:
            return False
        status = head.split(b"\r\n", 1)[0].decode()
        if " 101 " not in status:
            self.opened.set_exception(ConnectionError(f"The handshake was answered {status!r}."))
            self._transport.close()
            return False
        del self._received[: len(head) + 4]
        self.opened.set_result(None)
        return True

    def _take(self, opcode: int, start: int, end: int) -> None:
        if opcode == TEXT:
            self.on_text(bytes(self._received[start:end]))
        elif opcode == PING:
            self._transport.write(_frame(PONG, bytes(self._received[start:end])))
        elif opcode == CLOSE:
            self._transport.close()


def _handshake(port: int, path: str) -> bytes:
    key = b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", LAST | opcode, MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", LAST | opcode, MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", LAST | opcode, MASKED | 127, size)
    return head + NO_MASK + payload


def _end_of_frame(data: bytearray, at: int) -> tuple[int, int, int] | None:
    """The opcode of the frame at `at`, and the begin and end of its payload; None if it is not complete."""
    if len(data) < at + 2:
        return None
    first, size = data[at], data[at + 1]
    if not first & LAST:
        raise ValueError("Expected each message in one frame, got several.")
    start = at + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        start += width
        size = int.from_bytes(data[at + 2 : start])
    return (first & 0x0F, start, start + size) if len(data) >= start + size else None
