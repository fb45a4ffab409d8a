"""What unit tests use in place of servers: a queue that is a list, and Channels' own layer in memory."""

from typing import Any

import pytest

from taskapi.backends import get_backend
from tests.support.backends import ListBackend

LARGE = {"capacity": 100_000}  # what is over it would be dropped, in silence


@pytest.fixture
def queue(settings: Any) -> ListBackend:
    """The queue of the test, in which jobs stay."""
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    backend = get_backend()
    assert isinstance(backend, ListBackend)
    return backend


@pytest.fixture
def memory_layer(settings: Any) -> None:
    """Events travel within this process."""
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": LARGE}}
