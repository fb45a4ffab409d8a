"""The port through which a run's followers and its worker are told what happens.

Three verbs: publish what a run said; follow a run, through a feed; and listen for cancels (`tell_workers` sends them,
`cancellations` gives them). What travels here is a hint: an implementation may lose it, repeat it or deliver it in
another order, because the row has the truth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from math import inf
from uuid import UUID

from taskapi.protocol import Report
from taskapi.protocol.states import Execution


class Events(ABC):
    """One way for events to travel."""

    @abstractmethod
    async def publish(self, uuid: UUID, report: Report) -> bool:
        """Send the report to the followers of the run. False if that failed: it is logged, and it ends no run."""

    @abstractmethod
    def publish_from_thread(self, uuid: UUID, report: Report) -> None:
        """As `publish`, for code in a thread without an event loop."""

    @abstractmethod
    async def connect(self) -> Feed:
        """A feed that follows no run yet. Raises if events cannot travel now."""

    @abstractmethod
    def tell_workers(self, uuid: UUID, attempt: int) -> None:
        """Tell the workers, from a thread, that this attempt is to stop. If that fails, it is logged."""

    @abstractmethod
    def cancellations(self) -> AsyncIterator[Execution]:
        """The attempts that are to stop, as it happens. Raises if events cannot travel any more."""


class Feed(ABC):
    """The reports of the runs that it follows. It belongs to one event loop, and breaks by raising."""

    @property
    def refresh_after(self) -> float:
        """Seconds after which a run has to be followed again, or the feed may forget it."""
        return inf

    @abstractmethod
    async def follow(self, uuid: UUID) -> None:
        """Hear the reports of the run from now on."""

    @abstractmethod
    async def unfollow(self, uuid: UUID) -> None:
        """Hear the reports of the run no longer."""

    @abstractmethod
    async def receive(self) -> tuple[UUID, Report]:
        """The next report, and its run."""

    def close(self) -> None:  # noqa: B027 - a feed need not hold anything
        """Let go of what the feed holds. It is not used after that."""
