"""The callers of all sockets and streams are judged again, every few seconds: most of them are quiet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextvars import Context
from typing import Protocol

from taskapi.callers.caller import Caller
from taskapi.store.database import in_database
from taskapi.store.loops import one_per_loop

logger = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two rounds
PAGE = 20  # callers that are judged in one call: all others wait for it
SHARE = 0.1  # of the time, at most: a round over thousands of callers takes longer, so that others are served


class Connection(Protocol):
    """What a round needs of an open socket or stream."""

    caller: Caller

    async def log_out(self) -> None: ...


class Round:
    """Goes over the connections of an event loop, judges each caller again, and closes those whose caller changed.

    It has only callers that may change, and runs while there are any.
    """

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._going: asyncio.Task[None] | None = None

    def add(self, connection: Connection) -> None:
        """Judge its caller from now on."""
        self._connections.add(connection)
        if self._going is None:
            # not in the context of the request that comes first: the round outlives it, and its thread
            self._going = asyncio.get_running_loop().create_task(self._go(), context=Context())

    def remove(self, connection: Connection) -> None:
        """Judge its caller no longer."""
        self._connections.discard(connection)
        if not self._connections and self._going is not None:
            self._going.cancel()
            self._going = None

    async def _go(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PAUSE)
            connections = list(self._connections)
            for first in range(0, len(connections), PAGE):
                page = connections[first : first + PAGE]
                begun = loop.time()
                try:
                    changed = await in_database(_changed, [connection.caller for connection in page])
                except Exception as error:  # noqa: BLE001 - the round has to go on, whatever failed
                    logger.warning(
                        "The callers could not be judged again: %r. The next try is in %g s.",
                        error,
                        PAUSE,
                    )
                    break
                for connection in page:
                    if connection.caller in changed:
                        await connection.log_out()
                await asyncio.sleep((loop.time() - begun) * (1 / SHARE - 1))


def _changed(callers: Iterable[Caller]) -> set[Caller]:
    """Those that are not the same callers any more."""
    changed = set()
    for caller in callers:
        try:
            if caller.is_over or (caller.is_due and not caller.revalidate()):
                changed.add(caller)
        except Exception as error:  # noqa: BLE001 - the project's own authentication may raise anything
            caller.is_doubtful = True  # its next frame asks again
            logger.warning(
                "A caller (user %s) could not be judged again: %r. The next look asks once more.",
                caller.user_pk,
                error,
            )
    return changed


def get_round() -> Round:
    """The round of the running event loop."""
    return one_per_loop(Round)
