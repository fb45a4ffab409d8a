"""Where jobs are queued: the class that TASK_API_BACKEND names."""

from functools import cache

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from taskapi.backends.base import Backend, QueueUnavailable, WorkerQueue
from taskapi.conf import settings

__all__ = ["Backend", "QueueUnavailable", "WorkerQueue", "get_backend"]


@cache
def _backend(path: str) -> Backend:
    backend: Backend = import_string(path)()
    return backend


def get_backend() -> Backend:
    """The backend in use."""
    return _backend(settings.backend)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("TASK_API_"):
        _backend.cache_clear()


setting_changed.connect(_forget)
