"""The channel layer of a project that configures none; the one module that knows how channels_redis works inside."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, NamedTuple

from channels_redis.pubsub import RedisPubSubChannelLayer, RedisSingleShardConnection
from django.core.signals import setting_changed

from taskapi.redis import COMMAND_TIMEOUT, channel_layer_host

PREFIX = "taskapi"  # of its Redis keys


class PubSubLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # channels_redis has no types
    """channels_redis' pubsub layer, on connections that publish together what waits to be published."""

    def _get_layer(self) -> Any:
        known = asyncio.get_running_loop() in self._layers
        layer = super()._get_layer()
        if not known:
            layer._shards = [_Connection(shard.host, layer) for shard in layer._shards]  # noqa: SLF001
        return layer


class _Unsent(NamedTuple):
    channel: str
    message: bytes
    sent: asyncio.Future[None]


class _Connection(RedisSingleShardConnection):  # type: ignore[misc]
    """The connection to one server. A worker's runs publish at the same time, and a round trip takes all of them."""

    def __init__(self, host: Any, layer: Any) -> None:
        super().__init__(host, layer)
        self._unsent: list[_Unsent] = []
        self._sending: asyncio.Task[None] | None = None

    async def publish(self, channel: str, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        unsent = _Unsent(channel, message, loop.create_future())
        self._unsent.append(unsent)
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send_all())
        await unsent.sent

    async def _send_all(self) -> None:
        while self._unsent:
            # without those that nobody waits for any more: they are of yesterday when a server is there again
            batch = [unsent for unsent in self._unsent if not unsent.sent.done()]
            self._unsent = []
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT):
                    await self._send(batch)
            except Exception as error:  # noqa: BLE001 - it goes to whoever publishes
                for unsent in batch:
                    if not unsent.sent.done():
                        unsent.sent.set_exception(error)
            else:
                for unsent in batch:
                    if not unsent.sent.done():
                        unsent.sent.set_result(None)

    async def _send(self, batch: list[_Unsent]) -> None:
        async with self._lock:
            self._ensure_redis()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for channel, message, _ in batch:
                pipeline.publish(channel, message)
            await pipeline.execute()


@cache
def own_layer(url: str) -> PubSubLayer:
    return PubSubLayer(hosts=[channel_layer_host(url)], prefix=PREFIX)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "TASK_API_REDIS_URL":
        own_layer.cache_clear()


setting_changed.connect(_forget)
