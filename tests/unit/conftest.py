"""What unit tests use instead of servers: a queue that is a list, the in-memory layer of Channels, Django's handler."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskapi.backends import get_backend
from taskapi.views.polls import Handler
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


@pytest.fixture
def handler(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[..., Handler]]:
    """Makes the handler of a project with this middleware: names with a dot, or of the test's own module."""
    made: list[Handler] = []

    def make(*middleware: str) -> Handler:
        here = request.module.__name__
        settings.MIDDLEWARE = [name if "." in name else f"{here}.{name}" for name in middleware]
        made.append(Handler())
        return made[-1]

    yield make
    for server in made:
        server._threads.shutdown()
