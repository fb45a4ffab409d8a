"""A queue that is a list, for tests of what is queued and when."""

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
    """Nobody works on it: what was queued stays in `jobs`."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        self.jobs.append(Job(uuid, queue, run_at))

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        queued = {job.uuid for job in self.jobs if job.queue == queue}
        return [uuid for uuid in uuids if uuid not in queued]


class AwayBackend(Backend):
    """Nothing can be queued."""

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        raise ConnectionError("nobody there")
