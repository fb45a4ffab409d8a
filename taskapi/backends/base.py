"""What a backend is: the port to a queue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar
from uuid import UUID


class Backend(ABC):
    """Takes the uuid of a recorded run to somewhere where it will be executed."""

    #: Runs are executed in other processes than the one that starts them.
    other_processes: ClassVar[bool] = True

    @abstractmethod
    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        """Queue the run, not before `run_at`. Called after the commit of its row, in any thread.

        A job is a hint and the row is the truth: this may fail, and the run is not lost by it.
        """

    @contextmanager
    def together(self) -> Iterator[None]:
        """Runs that are queued inside, in this thread, may be queued as one at its end. That raises nothing."""
        yield

    def set_aside(self, uuid: UUID, *, queue: str) -> None:  # noqa: B027 - not every queue can
        """Offer the run to workers of the queue whose code is another than this one's, which has left it."""

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue; none, where a queue does not lose jobs."""
        return []
