"""Events that fail as real ones do: lost, repeated, in another order."""

import random
from collections.abc import AsyncIterator
from uuid import UUID

from taskapi.events import Events, Feed
from taskapi.protocol import Report
from taskapi.protocol.states import Execution


class UnreliableEvents(Events):
    """Loses some reports, sends some twice, and keeps some back until later ones have been sent."""

    def __init__(
        self, events: Events, *, loss: float = 0.0, repeat: float = 0.0, late: float = 0.0, seed: int = 0
    ) -> None:
        self.events = events
        self.loss, self.repeat, self.late = loss, repeat, late
        self.random = random.Random(seed)  # noqa: S311 - a test has to fail the same way twice
        self.kept_back: list[tuple[UUID, Report]] = []

    async def publish(self, uuid: UUID, report: Report) -> bool:
        return all([await self.events.publish(*sent) for sent in self._sent(uuid, report)])

    def publish_from_thread(self, uuid: UUID, report: Report) -> None:
        for sent in self._sent(uuid, report):
            self.events.publish_from_thread(*sent)

    async def connect(self) -> Feed:
        return await self.events.connect()

    def tell_workers(self, uuid: UUID, attempt: int) -> None:
        self.events.tell_workers(uuid, attempt)

    def cancellations(self) -> AsyncIterator[Execution]:
        return self.events.cancellations()

    def _sent(self, uuid: UUID, report: Report) -> list[tuple[UUID, Report]]:
        """What is sent now."""
        if self.random.random() < self.loss:
            return []
        if self.random.random() < self.late:
            self.kept_back.append((uuid, report))
            return []
        sent = [(uuid, report)] * (2 if self.random.random() < self.repeat else 1)
        self.random.shuffle(self.kept_back)
        sent += self.kept_back
        self.kept_back = []
        return sent
