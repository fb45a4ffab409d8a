"""What unit tests use instead of servers: a queue that is a list, and the in-memory layer of Channels."""

from typing import Any

import pytest

from taskapi.backends import get_backend
from tests.support.backends import ListBackend

LARGE = {"capacity": 100_000}  # the layer drops messages beyond it, and does not say so


@pytest.fixture
def queue(settings: Any) -> ListBackend:
    """A queue in which all jobs stay."""
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    backend = get_backend()
    assert isinstance(backend, ListBackend)
    return backend


@pytest.fixture
def memory_layer(settings: Any) -> None:
    """Send events within this process."""
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": LARGE}}
