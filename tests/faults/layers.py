"""Channel layers that lose messages, as every channel layer may: here always the same ones."""

from typing import Any

from channels_redis.pubsub import RedisPubSubChannelLayer

from taskapi.events.channel_layer import MESSAGE_TYPE, read


class DeafLayer(RedisPubSubChannelLayer):
    """Loses every message."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        pass


class LastOnlyLayer(RedisPubSubChannelLayer):
    """Loses every report of a run except the last."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if message["type"] != MESSAGE_TYPE or read(message)[1].finished:
            await self._get_layer().group_send(group, message)
