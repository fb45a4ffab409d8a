"""Channel layers that lose what a channel layer may lose, which is anything: here always the same."""

from typing import Any

from channels_redis.pubsub import RedisPubSubChannelLayer

from taskapi.events.channel_layer import MESSAGE_TYPE, read


class DeafLayer(RedisPubSubChannelLayer):
    """Loses everything."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        pass


class LastOnlyLayer(RedisPubSubChannelLayer):
    """Loses every report of a run but its last."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if message["type"] != MESSAGE_TYPE or read(message)[1].finished:
            await self._get_layer().group_send(group, message)
