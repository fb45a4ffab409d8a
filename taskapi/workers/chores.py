"""What a process does again and again beside its runs. One chore that fails stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

CHORE_PAUSE = 1.0  # seconds after which a chore that failed begins again

Chore = Callable[[], Coroutine[Any, Any, None]]


class Chores:
    """Runs chores on the event loop until it is stopped.

    A chore that raises begins again after a pause. One that ends all the same (a library raises CancelledError, say)
    is reported to `on_end`, with a sentence.
    """

    def __init__(self, on_end: Callable[[str], object]) -> None:
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, *chores: Chore) -> None:
        for chore in chores:
            task = asyncio.get_running_loop().create_task(_keep(chore), name=chore.__name__)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def stop(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:  # else `stop` has cancelled it
            error = None if task.cancelled() else task.exception()
            self._on_end(f"its chore {task.get_name()} has ended ({error!r})")


async def _keep(chore: Chore) -> None:
    while True:
        try:
            await chore()
        except Exception:
            logger.exception("The chore %s failed; it begins again in %g s.", chore.__name__, CHORE_PAUSE)
        await asyncio.sleep(CHORE_PAUSE)
