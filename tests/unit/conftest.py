"""What unit tests use instead of servers: a queue that is a list, and the in-memory layer of Channels."""

from typing import Any

import pytest

from taskapi.backends import get_backend
from tests.support.backends import ListBackend

LARGE = {"capacity": 100_000}  # a full layer drops messages, and raises nothing


@pytest.fixture
def queue(settings: Any) -> ListBackend:
    """A queue from which nobody takes jobs."""
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    backend = get_backend()
    assert isinstance(backend, ListBackend)
    return backend


@pytest.fixture
def memory_layer(settings: Any) -> None:
    """Send events within this process."""
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": LARGE}}
