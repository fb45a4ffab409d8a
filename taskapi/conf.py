"""The settings of the project. Each is read when it is used, so `override_settings` has its effect."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import Settings as DjangoSettings
from django.conf import settings as django_settings
from django.utils.module_loading import import_string
from rest_framework.settings import api_settings

DEFAULT_BACKEND = "taskapi.backends.arq.ArqBackend"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
DEFAULT_REDIS_PREFIX = "taskapi"
DEFAULT_RETENTION = timedelta(days=7)
DEFAULT_EVENT_INTERVAL = 0.05  # seconds between two `progress` events of a run
DEFAULT_LIMITS = {
    "sent_frame_bytes": 2**20,  # of a frame that the server sends: by default daphne sends no larger one
}

TASKS_SETTINGS = ("BACKGROUND_TASKS", "BACKGROUND_CLASSES")  # both of the 1.x documentation's names
CHANNEL_LAYER_ALIASES = ("taskapi", "default")  # the first that the project has is used


class Settings:
    """Every TASK_API_* setting by its name in lower case, without the prefix."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    @property
    def backend(self) -> str:
        path: str = self._get_often("BACKEND", DEFAULT_BACKEND)
        return path

    @property
    def background_tasks(self) -> tuple[Any, ...]:
        """Dotted paths or Task classes, from both settings."""
        return tuple(dict.fromkeys(entry for name in TASKS_SETTINGS for entry in self._get(name, ())))

    @property
    def authentication_classes(self) -> list[Any]:
        return self._classes("AUTHENTICATION_CLASSES", api_settings.DEFAULT_AUTHENTICATION_CLASSES)

    @property
    def permissions_classes(self) -> list[Any]:
        return self._classes("PERMISSIONS_CLASSES", api_settings.DEFAULT_PERMISSION_CLASSES)

    @property
    def throttle_classes(self) -> list[Any]:
        return self._classes("THROTTLE_CLASSES", api_settings.DEFAULT_THROTTLE_CLASSES)

    @property
    def redis_url(self) -> str:
        url: str = self._get("REDIS_URL", None) or os.environ.get("REDIS_URL") or DEFAULT_REDIS_URL
        return url

    @property
    def redis_prefix(self) -> str:
        """The beginning of all our names in Redis: keys, groups, channels."""
        prefix: str = self._get_often("REDIS_PREFIX", DEFAULT_REDIS_PREFIX)
        return prefix

    @property
    def event_interval(self) -> float:
        return float(self._get_often("EVENT_INTERVAL", DEFAULT_EVENT_INTERVAL))

    @property
    def sent_frame_bytes(self) -> int:
        return self._limit("sent_frame_bytes")

    @property
    def retention(self) -> timedelta | None:
        # None is a value here: for ever
        return as_duration(getattr(django_settings, "TASK_API_RETENTION", DEFAULT_RETENTION))

    def channel_layer_alias(self) -> str | None:
        """The alias of the layer that carries events; None: a layer of our own at TASK_API_REDIS_URL."""
        layers: Mapping[str, Any] = getattr(django_settings, "CHANNEL_LAYERS", None) or {}
        return next((alias for alias in CHANNEL_LAYER_ALIASES if alias in layers), None)

    def _get(self, name: str, default: Any) -> Any:
        """The setting, or the default; None means that it is not set."""
        value = getattr(django_settings, f"TASK_API_{name}", None)
        return default if value is None else value

    def _get_often(self, name: str, default: Any) -> Any:
        """As `_get`, for what each run needs several times: Django takes 3 µs to say that a setting is not set."""
        # A test that overrides settings puts an object of another class there: then nothing is kept.
        if type(django_settings._wrapped) is not DjangoSettings:  # type: ignore[misc]  # noqa: SLF001
            return self._get(name, default)
        if name not in self._kept:
            self._kept[name] = self._get(name, default)
        return self._kept[name]

    def _limit(self, name: str) -> int:
        given: Mapping[str, int] = self._get_often("LIMITS", {})
        return given.get(name, DEFAULT_LIMITS[name])

    def _classes(self, name: str, default: Sequence[Any]) -> list[Any]:
        entries = self._get_often(name, None)
        if entries is None:
            return list(default)
        return [import_string(entry) if isinstance(entry, str) else entry for entry in entries]


def as_duration(value: timedelta | float | None) -> timedelta | None:
    """The timedelta that a setting means: it may be seconds, a timedelta, or None for ever."""
    return value if value is None or isinstance(value, timedelta) else timedelta(seconds=value)


settings = Settings()
