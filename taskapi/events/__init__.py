"""Who is told what happens to runs: their followers and the workers. `get_events` decides how events travel.

An event is a hint, and may be lost. taskapi.events.hub says how a follower gets what was lost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from taskapi.backends import get_backend
from taskapi.events.channel_layer import ChannelLayerEvents
from taskapi.events.in_process import InProcessEvents
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

_between_processes: Events = ChannelLayerEvents()
_in_process: Events = InProcessEvents()
_used: Events | None = None  # inside `using`


def get_events() -> Events:
    """How events travel: as the backend needs it, which decides where runs are executed."""
    if _used is not None:
        return _used
    return _in_process if get_backend().events_in_process else _between_processes


@contextmanager
def using(events: Events) -> Iterator[Events]:
    """Let events travel another way inside the block, in the whole process: for tests, and for scripts."""
    global _used  # noqa: PLW0603 - the one place where it is decided
    before, _used = _used, events
    try:
        yield events
    finally:
        _used = before


def _after_fork() -> None:
    """A child process has none of the readers of its parent, nor their event loops."""
    global _in_process  # noqa: PLW0603 - as above
    _in_process = InProcessEvents()


os.register_at_fork(after_in_child=_after_fork)


def publish(uuid: UUID, report: Report) -> Coroutine[Any, Any, bool]:
    """Send the report to the followers of the run. False if that failed: it is logged, and it ends no run."""
    return get_events().publish(uuid, report)


def publish_from_thread(uuid: UUID, report: Report) -> None:
    """As `publish`, for code in a thread without an event loop."""
    get_events().publish_from_thread(uuid, report)


def tell_workers(uuid: UUID, attempt: int) -> None:
    """Tell the workers, from a thread, that this attempt is to stop. It may be lost; the row says it."""
    get_events().tell_workers(uuid, attempt)


def cancellations() -> AsyncIterator[Execution]:
    """The attempts that are to stop, as it happens. Raises if events cannot travel any more."""
    return get_events().cancellations()
