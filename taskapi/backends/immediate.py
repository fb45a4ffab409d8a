"""Runs that are executed where they are started, before `start()` returns: for unit tests."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from taskapi.backends.base import Backend


class ImmediateBackend(Backend):
    """A run is executed inline, in the thread that commits it. A `delay` is not waited for. Needs nothing."""

    other_processes = False
    events_in_process = True
    inline = True

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        from taskapi.engines import immediate  # what executes stands above what starts

        immediate.execute(uuid)
