"""Who is at the other end of the sockets is looked at again and again, also where they are quiet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from taskapi.runs.access import Caller
from taskapi.store.database import in_database
from taskapi.store.loops import of_loop

logger = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two rounds
PAGE = 20  # callers that are judged in one go: all other sockets wait behind them
SHARE = 0.1  # of the time, at most: a round over thousands of callers takes longer, so that others are served


class Socket(Protocol):
    """An open socket, as far as it matters here."""

    caller: Caller

    async def log_out(self) -> None: ...


class Round:
    """Goes from socket to socket of an event loop, judges each caller again, and closes those who are others by now.

    It has those alone that may change, and lives while there are any.
    """

    def __init__(self) -> None:
        self._sockets: set[Socket] = set()
        self._going: asyncio.Task[None] | None = None

    def add(self, socket: Socket) -> None:
        """Look at it from now on."""
        self._sockets.add(socket)
        if self._going is None:
            self._going = asyncio.get_running_loop().create_task(self._go())

    def remove(self, socket: Socket) -> None:
        """Look at it no longer."""
        self._sockets.discard(socket)
        if not self._sockets and self._going is not None:
            self._going.cancel()
            self._going = None

    async def _go(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PAUSE)
            sockets = list(self._sockets)
            for first in range(0, len(sockets), PAGE):
                page = sockets[first : first + PAGE]
                begun = loop.time()
                try:
                    changed = await in_database(_changed, [socket.caller for socket in page])
                except Exception as error:  # noqa: BLE001 - whatever it is, the next look is in a few seconds
                    logger.warning("The callers of sockets could not be looked at: %r", error)
                    break
                for socket in page:
                    if socket.caller in changed:
                        await socket.log_out()
                await asyncio.sleep((loop.time() - begun) * (1 / SHARE - 1))


def _changed(callers: Iterable[Caller]) -> set[Caller]:
    """Those who are not who they were."""
    changed = set()
    for caller in callers:
        try:
            if caller.is_over or (caller.is_due and not caller.renew()):
                changed.add(caller)
        except Exception as error:  # noqa: BLE001 - the project's own authentication may raise anything
            caller.is_doubtful = True  # its next frame asks again
            logger.warning("It could not be found out who the caller of a socket is now: %r", error)
    return changed


def get_round() -> Round:
    """The round of the running event loop."""
    return of_loop(Round)
