"""Whether events can reach the processes that serve sockets."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from taskapi.backends import get_backend
from taskapi.conf import CHANNEL_LAYER_ALIASES, settings

IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"


def check_channel_layer(**kwargs: Any) -> list[CheckMessage]:
    """The channel layer can carry events to the processes that serve sockets."""
    alias = settings.channel_layer_alias()
    if alias is None:
        return []
    layers: Any = getattr(django_settings, "CHANNEL_LAYERS", {})
    path = layers[alias].get("BACKEND", "")
    try:
        import_string(path)
    except ImportError as error:
        return [
            checks.Error(
                f"CHANNEL_LAYERS[{alias!r}]: the backend {path!r} cannot be imported: {error}",
                hint="Use 'channels_redis.pubsub.RedisPubSubChannelLayer', or remove the layer: events then travel "
                "over a layer of our own, at TASK_API_REDIS_URL.",
                id="taskapi.E020",
            )
        ]
    if path == IN_MEMORY_LAYER and _other_processes():
        return [
            checks.Error(
                f"CHANNEL_LAYERS[{alias!r}] is in memory, and tasks run in other processes: no event would arrive.",
                hint="Use 'channels_redis.pubsub.RedisPubSubChannelLayer' with your Redis in CONFIG['hosts'], for "
                f"this alias or for {CHANNEL_LAYER_ALIASES[0]!r}; or remove the layer: events then travel over "
                "a layer of our own, at TASK_API_REDIS_URL.",
                id="taskapi.E021",
            )
        ]
    return []


def _other_processes() -> bool:
    try:
        return get_backend().other_processes
    except Exception:  # noqa: BLE001 - check_settings reports what is wrong with it
        return False
