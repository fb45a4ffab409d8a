"""Who is told what happens to runs: their followers and the workers. `get_events` decides how events travel.

An event is a hint, and may be lost. taskapi.events.hub says how a follower gets what was lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from taskapi.events.channel_layer import ChannelLayerEvents
from taskapi.events.port import Events, Feed
from taskapi.protocol import Report
from taskapi.protocol.states import Execution

__all__ = [
    "Events",
    "Feed",
    "Report",
    "cancellations",
    "get_events",
    "publish",
    "publish_from_thread",
    "tell_workers",
    "using",
]

_events: Events = ChannelLayerEvents()


def get_events() -> Events:
    """How events travel in this process."""
    return _events


@contextmanager
def using(events: Events) -> Iterator[Events]:
    """Let events travel another way inside the block, in the whole process: for tests, and for scripts.

    No run may be followed when the block begins or ends: a follower stays with the events that it began with.
    """
    global _events  # noqa: PLW0603 - the one place where it is decided
    before, _events = _events, events
    try:
        yield events
    finally:
        _events = before


def publish(uuid: UUID, report: Report) -> Coroutine[Any, Any, bool]:
    """Send the report to the followers of the run. False if that failed: it is logged, and it ends no run."""
    return _events.publish(uuid, report)


def publish_from_thread(uuid: UUID, report: Report) -> None:
    """As `publish`, for code in a thread without an event loop."""
    _events.publish_from_thread(uuid, report)


def tell_workers(uuid: UUID, attempt: int) -> None:
    """Tell the workers, from a thread, that this attempt is to stop. It may be lost; the row says it."""
    _events.tell_workers(uuid, attempt)


def cancellations() -> AsyncIterator[Execution]:
    """The attempts that are to stop, as it happens. Raises if events cannot travel any more."""
    return _events.cancellations()
