"""What keeps threads from waiting, one after the other, for a server that does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions

THREAD_PAUSE = 5.0  # seconds for which calls are refused after one that got no answer


class Breaker:
    """Refuses calls for a while after one that timed out.

    All sockets of a server process share one thread for their rows and for what follows a commit: a server that takes
    connections and answers none would hold up that thread once for each run. What is not sent is found by its row.
    """

    def __init__(self) -> None:
        self._refusing_until = 0.0

    @contextmanager
    def guard(self) -> Iterator[None]:
        """For one call: raises TimeoutError, and does not make the call, while calls are refused."""
        if time.monotonic() < self._refusing_until:
            raise TimeoutError("It gave no answer a moment ago.")
        try:
            yield
        except (TimeoutError, redis.exceptions.TimeoutError):
            self._refusing_until = time.monotonic() + THREAD_PAUSE
            raise
