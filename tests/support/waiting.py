"""Wait for a state, with a limit: tests do this instead of sleeping."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 20.0  # seconds; enough for a busy machine
INTERVAL = 0.01  # seconds between two looks


def wait_for(look: Callable[[], T | None], limit: float = LIMIT) -> T:
    """Call `look` until its result is true, and return the result; fail after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{look} was still {found!r} after {limit} s")
        time.sleep(INTERVAL)
    return found


async def until(look: Callable[[], T | None], limit: float = LIMIT) -> T:
    """The same as `wait_for`, on an event loop."""
    async with asyncio.timeout(limit):
        while not (found := look()):  # noqa: ASYNC110 - it may happen in another process, which sets no Event
            await asyncio.sleep(INTERVAL)
    return found
