"""What a backend is: the port to a queue. One side starts runs, the other is a worker's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from taskapi.exceptions import TaskAPIError

HEALTH_INTERVAL = 30  # seconds between two records of a worker's health


class QueueUnavailable(TaskAPIError):
    """The queue cannot be reached at the moment. A worker waits and tries again."""


class WorkerQueue(ABC):
    """The side of a worker: where it takes jobs. It belongs to one event loop.

    Only `take` has to be written. Each method may raise QueueUnavailable.
    """

    @abstractmethod
    async def take(self, seconds: float) -> UUID | None:
        """Take the next job and return the uuid of its run; None if none comes within `seconds`.

        A worker never cancels this call: a job that was just taken would be lost.
        """

    def done(self, uuid: UUID) -> None:  # noqa: B027 - not every queue needs to know
        """The worker has nothing more to do for a run that it took."""

    async def give_back(self, uuid: UUID) -> None:  # noqa: B027 - a job may be dropped: the row is the truth
        """Pass on the job of a run that has no row here; another worker may have its row."""

    async def promote(self) -> float | None:
        """Make deferred jobs that are due ready to be taken; the seconds until the next is due, None without one.

        A worker calls it about twice a second, so a queue can do its own cleaning here.
        """
        return None

    async def record_health(self, text: str) -> None:  # noqa: B027 - not every queue has a place for it
        """Record that a worker is well. A worker calls it every HEALTH_INTERVAL seconds."""

    async def close(self) -> None:  # noqa: B027 - not every queue has something to close
        """Close the connections."""


class Backend(ABC):
    """Takes the uuid of a recorded run to the place where it will be executed."""

    #: `enqueue` executes the run: it has ended when `enqueue` returns.
    inline: ClassVar[bool] = False
    #: Runs are executed in other processes than the one that starts them.
    other_processes: ClassVar[bool] = True
    #: Events travel within this process, because runs are executed where they are followed. Nothing else carries them.
    events_in_process: ClassVar[bool] = False
    #: The dotted path of the module that executes runs in the server process. Its `serve()` is called, any number of
    #: times, in a process that serves requests or sockets, and its `stop()` when the server says that it ends. None if
    #: other processes execute the runs, or `enqueue` does.
    engine: ClassVar[str | None] = None

    @abstractmethod
    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        """Queue the run, not before `run_at`. Called after the commit of its row, in any thread.

        This may fail (with QueueUnavailable if the queue is away). The run is not lost: its row is the truth.
        """

    @contextmanager
    def together(self) -> Iterator[None]:
        """Runs that are queued inside, in this thread, may be queued in one call at its end. That raises nothing."""
        yield

    def set_aside(self, uuid: UUID, *, queue: str) -> None:  # noqa: B027 - not every queue can
        """Offer the run to workers of the queue that have other code than this process, which has left the run."""

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue; an empty list if the queue loses no jobs."""
        return []

    def has_worker(self, queue: str) -> bool | None:
        """Whether a worker takes the queue at the moment; None if the backend cannot tell.

        It is asked about runs that have waited for seconds, and by `check --deploy`. Raises QueueUnavailable.
        """
        return None

    def worker_queue(self, queues: Sequence[str]) -> WorkerQueue:
        """The jobs of these queues, for a worker on the running event loop; jobs of the first queue come first."""
        raise NotImplementedError(f"{type(self).__name__} has no `worker_queue`: no worker can take its jobs.")

    @property
    def has_worker_queue(self) -> bool:
        """Whether `manage.py taskworker` can work for this backend: it defines `worker_queue`."""
        return type(self).worker_queue is not Backend.worker_queue
