"""Waiting for a run without a thread and without asking again and again: what a long poll holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from taskapi.events.hub import Row, get_hub
from taskapi.models import TaskInfo
from taskapi.protocol import Report
from taskapi.protocol.states import FINAL, Status
from taskapi.store.database import AWAY, in_database


async def wait_for_run(uuid: UUID, is_enough: Callable[[TaskInfo], bool], timeout: float, *, until_final: bool) -> None:
    """Return once `is_enough` says so of the run, or the run is gone, or after `timeout` seconds.

    Or once the database is away: whoever waits reads the run then, and says so. `until_final`: nothing before the end
    of the run is enough, so nothing before it is looked at.
    """
    hub = get_hub()
    waiter = _Waiter(uuid, until_final)
    hub.open()
    try:
        with suppress(TimeoutError, *AWAY):
            async with asyncio.timeout(timeout):
                await hub.add(waiter)
                await waiter.wait(is_enough)
    finally:
        hub.remove(waiter)
        await hub.close()


class _Waiter:
    """A follower that sends nothing: it looks at the row if it was told that there is something to see."""

    def __init__(self, uuid: UUID, until_final: bool) -> None:
        self.uuid = uuid
        self.known: TaskInfo | None = None  # the run as it was at the last look
        self._until_final = until_final
        self._woken = asyncio.Event()

    def knows(self, row: Row) -> bool:
        if self._until_final:
            return Status(row.status) not in FINAL
        known = self.known
        return known is not None and (known.seq, known.cancel_requested) == (row.seq, row.cancel_requested)

    def hear(self, report: Report, characters: int) -> None:
        if report.finished or not self._until_final:
            self._woken.set()

    def catch_up(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Nothing has to be stopped: `wait` is ended by who called it."""

    async def wait(self, is_enough: Callable[[TaskInfo], bool]) -> None:
        while (info := await in_database(_read, self.uuid)) is not None and not is_enough(info):
            self.known = info
            await self._woken.wait()
            self._woken.clear()


def _read(uuid: UUID) -> TaskInfo | None:
    return TaskInfo.rows().only("uuid", "status", "seq", "cancel_requested").filter(uuid=uuid).first()
