"""The channel layer of a project that configures none. No other module knows how channels_redis works inside."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from channels_redis.pubsub import RedisPubSubChannelLayer, RedisSingleShardConnection
from django.core.signals import setting_changed

from taskapi.backends.redis import COMMAND_TIMEOUT, SILENCE, address_of, channel_layer_host, follow_primary
from taskapi.conf import settings

PROBE = ":probe"  # after the prefix: a key that never exists


class PubSubLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # channels_redis has no types
    """The pubsub layer of channels_redis, whose connections publish in one round trip all that waits."""

    def _get_layer(self) -> Any:
        layer = self._layers.get(asyncio.get_running_loop())
        if layer is None:
            layer = super()._get_layer()
            layer._shards = [_Connection(shard.host, layer) for shard in layer._shards]  # noqa: SLF001
        return layer


class _Unsent(NamedTuple):
    channel: str
    message: bytes
    sent: asyncio.Future[None]


class _Connection(RedisSingleShardConnection):  # type: ignore[misc]
    """The connection to one server. The runs of a worker publish at the same time: one round trip takes all of it."""

    def __init__(self, host: Any, layer: Any) -> None:
        super().__init__(host, layer)
        self._unsent: list[_Unsent] = []
        self._sending: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    def _ensure_redis(self) -> None:
        if self._redis is None:
            super()._ensure_redis()
            client: Any = self._redis
            follow_primary(client.connection_pool, address_of(self.host))

    def _ensure_receiver(self) -> None:
        super()._ensure_receiver()
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def flush(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})
            self._probing = None
        await super().flush()

    async def _probe(self) -> None:
        """Ask for a write every few seconds: only a replica refuses it, and it delivers to nobody what is published."""
        while True:
            await asyncio.sleep(SILENCE)
            if self._redis is not None:
                with suppress(Exception):  # it is away, and publishers log that. A refusal closes the connection
                    await self._redis.unlink(self.channel_layer.prefix + PROBE)

    async def publish(self, channel: str, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        unsent = _Unsent(channel, message, loop.create_future())
        self._unsent.append(unsent)
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send_all())
        await unsent.sent

    async def _send_all(self) -> None:
        while self._unsent:
            # their senders may have timed out: do not publish stale events when the server is back
            batch = [unsent for unsent in self._unsent if not unsent.sent.done()]
            self._unsent = []
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT):
                    await self._send(batch)
            except Exception as error:  # noqa: BLE001 - it is raised to the publishers
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


async def reconnect(layer: Any) -> None:
    """Let a layer of the project connect again, if it can: its server turned out to be a replica."""
    if hasattr(layer, "close_pools"):  # the core layer of channels_redis
        await layer.close_pools()


@cache
def own_layer(url: str) -> PubSubLayer:
    return PubSubLayer(hosts=[channel_layer_host(url)], prefix=settings.redis_prefix)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in ("TASK_API_REDIS_URL", "TASK_API_REDIS_PREFIX"):
        own_layer.cache_clear()


setting_changed.connect(_forget)
