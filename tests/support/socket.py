"""A WebSocket client for JSON frames, with a limit for each wait."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

LIMIT = 10.0  # seconds


class Socket:
    """An open connection; frames are dicts."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT):
            return json.loads(await self.connection.recv())

    async def receive_until(self, kind: str) -> list[dict[str, Any]]:
        """The frames up to the first one of that type, which is included."""
        frames = [await self.receive()]
        while frames[-1]["type"] != kind:
            frames.append(await self.receive())
        return frames


@asynccontextmanager
async def open_socket(url: str, **options: Any) -> AsyncIterator[Socket]:
    async with connect(url, open_timeout=LIMIT, **{"subprotocols": ["taskapi.v1"], **options}) as connection:
        yield Socket(connection)
