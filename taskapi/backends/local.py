"""Runs that wait to be executed where they were started: in the memory of the server process.

This is the half that starts runs. The other half takes them, and executes them: taskapi.engines.local.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from heapq import heappop, heappush
from uuid import UUID

from taskapi.backends.base import Backend

logger = logging.getLogger(__name__)


class Jobs:
    """The runs that wait in this process, each until it is due. Any thread may use it.

    It is open while somebody takes runs from it. Otherwise it keeps none: their rows say that they wait.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, closed, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._wake: Callable[[], object] | None = None  # of the one who takes runs
        self._due: dict[UUID, float] = {}  # when each run that waits is due
        self._order: list[tuple[float, int, UUID]] = []  # a heap; also of times that do not hold any more
        self._numbers = itertools.count()  # runs that are due at the same time are taken in order
        self._taken: Counter[UUID] = Counter()

    def open(self, wake: Callable[[], object]) -> None:
        """Keep runs from now on. `wake` is called, in any thread, whenever one was put in."""
        with self._lock:
            self._wake = wake

    def close(self) -> None:
        """Forget what waits, and keep nothing more."""
        with self._lock:
            self._wake = None
            self._due.clear()
            self._order.clear()
            self._taken.clear()

    def put(self, uuid: UUID, run_at: datetime | None = None) -> bool:
        """Let the run wait, not before `run_at`; False if nobody takes runs here. What was said last holds."""
        due = time.time()
        if run_at is not None:
            due = max(due, run_at.timestamp())
        with self._lock:
            if self._wake is None:
                return False
            self._due[uuid] = due
            heappush(self._order, (due, next(self._numbers), uuid))
            self._wake()
        return True

    def take(self) -> UUID | None:
        """The run that has been due for longest; None if no run is due."""
        with self._lock:
            first = self._first()
            if first is None or first[0] > time.time():
                return None
            uuid = first[1]
            heappop(self._order)
            del self._due[uuid]
            self._taken[uuid] += 1
            return uuid

    def next_due(self) -> float | None:
        """The seconds until a run is due; None if no run waits."""
        with self._lock:
            first = self._first()
            return None if first is None else max(0.0, first[0] - time.time())

    def done(self, uuid: UUID) -> None:
        """Nothing more is done for a run that was taken."""
        with self._lock:
            self._taken[uuid] -= 1
            if self._taken[uuid] <= 0:  # less, if it was closed meanwhile
                del self._taken[uuid]

    def without(self, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that neither wait here nor are taken."""
        with self._lock:
            return [uuid for uuid in uuids if uuid not in self._due and uuid not in self._taken]

    def _first(self) -> tuple[float, UUID] | None:
        while self._order:
            due, _, uuid = self._order[0]
            if self._due.get(uuid) == due:
                return due, uuid
            heappop(self._order)
        return None


#: Those of this process. They are not the backend's own: tests that override settings get another backend each time.
jobs = Jobs()


os.register_at_fork(after_in_child=jobs.reset)  # the runs that wait are executed by the parent


class LocalBackend(Backend):
    """Runs are executed in the server process: for development, and for small sites of one process. Needs nothing."""

    other_processes = False
    events_in_process = True
    engine = "taskapi.engines.local"

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        if not jobs.put(uuid, run_at):
            logger.info(
                "Run %s waits in its row, because this process serves nothing. A server process of the project takes "
                "it up within some seconds.",
                uuid,
            )

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        return jobs.without(uuids)
