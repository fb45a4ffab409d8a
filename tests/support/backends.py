"""Backends without a server: a queue that is a list, and one that always fails."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from taskapi.backends.base import Backend


class Job(NamedTuple):
    uuid: UUID
    queue: str
    run_at: datetime | None = None


class ListBackend(Backend):
    """Keeps what was queued in `jobs`; no worker takes it."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        self.jobs.append(Job(uuid, queue, run_at))

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        queued = {job.uuid for job in self.jobs if job.queue == queue}
        return [uuid for uuid in uuids if uuid not in queued]


class AwayBackend(Backend):
    """Fails whenever a run is queued."""

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        raise ConnectionError("no connection")
