"""Channel layers that fail as real ones do, based on the in-memory layer of Channels."""

import asyncio
import random
from typing import Any

from channels.layers import InMemoryChannelLayer


class LossyLayer(InMemoryChannelLayer):
    """Loses some group messages, and delivers others after the next one."""

    def __init__(self, loss: float = 0.0, late: float = 0.0, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.loss, self.late = loss, late
        self.random = random.Random(seed)  # noqa: S311 - seeded, so that a failure can be repeated
        self.held_up: list[tuple[str, dict[str, Any]]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self.random.random() < self.loss:
            return
        if self.random.random() < self.late:
            self.held_up.append((group, message))
            return
        await super().group_send(group, message)
        while self.held_up:
            await super().group_send(*self.held_up.pop(0))


class SlowLayer(InMemoryChannelLayer):
    """Takes a moment for each change of a group, as a layer over a network does."""

    async def group_add(self, group: str, channel: str) -> None:
        await asyncio.sleep(0.001)
        await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await asyncio.sleep(0.001)
        await super().group_discard(group, channel)


class AwayLayer(InMemoryChannelLayer):
    """Raises on every call while `away` is set, also from a `receive` that waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.away = True
        self._breaking = asyncio.Event()

    def leave(self) -> None:
        self.away = True
        self._breaking.set()

    def come_back(self) -> None:
        self.away = False
        self._breaking = asyncio.Event()

    def _check(self) -> None:
        if self.away:
            raise ConnectionError("the layer is away")

    async def new_channel(self, prefix: str = "specific.") -> str:
        self._check()
        return await super().new_channel(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        self._check()
        await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self._check()
        await super().group_discard(group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self._check()
        await super().group_send(group, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        receiving = asyncio.ensure_future(super().receive(channel))
        breaking = asyncio.ensure_future(self._breaking.wait())
        try:
            await asyncio.wait({receiving, breaking}, return_when=asyncio.FIRST_COMPLETED)
            self._check()
            return await receiving
        finally:
            receiving.cancel()
            breaking.cancel()
