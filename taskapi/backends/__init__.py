"""Where jobs are queued: the class that TASK_API_BACKEND names."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from taskapi.backends.base import Backend, QueueUnavailable, WorkerQueue
from taskapi.conf import settings

__all__ = ["Backend", "QueueUnavailable", "WorkerQueue", "get_backend", "using"]


_used: Backend | None = None  # inside `using`


@cache
def _backend(path: str) -> Backend:
    backend: Backend = import_string(path)()
    return backend


def get_backend() -> Backend:
    """The backend in use."""
    return _backend(settings.backend) if _used is None else _used


@contextmanager
def using(backend: Backend) -> Iterator[Backend]:
    """Let another backend be in use inside the block, in the whole process, whatever the settings say: for tests."""
    global _used  # noqa: PLW0603 - the one place where it is decided
    before, _used = _used, backend
    try:
        yield backend
    finally:
        _used = before


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("TASK_API_"):
        _backend.cache_clear()


setting_changed.connect(_forget)
