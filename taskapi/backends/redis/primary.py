"""Connections that follow the primary when Redis fails over behind a name.

The old primary goes on as a replica and keeps its connections open: it refuses writes, and delivers what is published
to nobody. So a refusal counts as a dead connection (`follow_primary`): it is closed, every other connection of the
process to that address is closed when it is used next, and the name is resolved again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import redis.asyncio
import redis.asyncio.retry
import redis.exceptions
import redis.retry
from redis.backoff import NoBackoff

T = TypeVar("T")

#: The errors of a Redis that is away, starts, or has lost its primary. They pass: wait, and try again.
OUTAGE = (redis.exceptions.RedisError, OSError)


class Demoted(redis.exceptions.ConnectionError):
    """The server is a replica, or becomes one; it has not done what it was asked."""


#: How a server says so if redis-py has no error for it: in a script, before Redis 7; to a command that waits for a job;
#: and from a replica that has lost its primary.
REFUSALS = ("-READONLY ", "UNBLOCKED ", "MASTERDOWN ")

_demotions: Counter[str] = Counter()  # by address: how often the server refused a connection of this process


def is_demoted(error: BaseException) -> bool:
    """Whether a server refused because it is no primary (any more)."""
    if isinstance(error, (Demoted, redis.exceptions.ReadOnlyError)):
        return True
    if isinstance(error, redis.exceptions.ConnectionError):  # what Sentinel's own connections make of it
        return isinstance(error.__context__, redis.exceptions.ReadOnlyError)
    return isinstance(error, redis.exceptions.ResponseError) and any(refusal in str(error) for refusal in REFUSALS)


class _Retry(redis.retry.Retry):
    """Tries once more, at once, after Demoted; other errors are raised as usual."""

    def call_with_retry(self, do: Callable[[], T], fail: Callable[[Exception], Any]) -> T:
        with suppress(Demoted):
            return super().call_with_retry(do, fail)
        return super().call_with_retry(do, fail)


class _AsyncRetry(redis.asyncio.retry.Retry):
    async def call_with_retry(
        self, do: Callable[[], Awaitable[T]], fail: Callable[[redis.exceptions.RedisError], Any]
    ) -> T:
        with suppress(Demoted):
            return await super().call_with_retry(do, fail)
        return await super().call_with_retry(do, fail)


def follow_primary(pool: Any, address: str) -> None:
    """Have a pool treat a server that has become a replica as one that is gone; a refused command is tried once more.

    It takes any pool of redis-py, sync or async, that has no connection yet. All pools of an address share what one of
    them finds.
    """
    is_async = isinstance(pool, redis.asyncio.ConnectionPool)
    following, retry = (_following_async, _AsyncRetry) if is_async else (_following, _Retry)
    usual: Any = pool.connection_class
    pool.connection_class = following(usual, address)
    pool.connection_class.__name__ = usual.__name__  # redis-py tells TLS from TCP by it
    pool.connection_kwargs["retry"] = retry(NoBackoff(), 0)
    pool.connection_kwargs["retry_on_error"] = [Demoted]


class _Standing:
    """What a connection knows of the server at its address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._seen = _demotions[address]

    def renew(self) -> None:
        """The connection was opened again."""
        self._seen = _demotions[self._address]

    @property
    def is_stale(self) -> bool:
        """Whether another connection has found since then that the server is no primary any more."""
        return self._seen != _demotions[self._address]

    def refused(self, error: Exception) -> Demoted:
        """Tell the other connections; the error to raise."""
        if not self.is_stale:
            _demotions[self._address] += 1
        return Demoted(f"The server is no primary any more: {error}")


@cache
def _following(usual: Any, address: str) -> Any:
    """The class of connections `usual`, whose connections are closed if they turn out to lead to a replica."""

    class Following(usual):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._standing = _Standing(address)
            super().__init__(*args, **options)

        def on_connect(self) -> None:
            self._standing.renew()
            super().on_connect()

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if self._sock is not None and self._standing.is_stale:
                self.disconnect()
            super().send_packed_command(command, check_health)

        def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                return super().read_response(*args, **options)
            except redis.exceptions.RedisError as error:
                if not is_demoted(error):
                    raise
                self.disconnect()
                raise self._standing.refused(error) from error

    return Following


@cache
def _following_async(usual: Any, address: str) -> Any:
    """As `_following`, for an event loop."""

    class Following(usual):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._standing = _Standing(address)
            super().__init__(*args, **options)

        async def on_connect(self) -> None:
            self._standing.renew()
            await super().on_connect()

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if self.is_connected and self._standing.is_stale:
                await self.disconnect(nowait=True)
            await super().send_packed_command(command, check_health)

        async def read_response(self, *args: Any, **options: Any) -> Any:
            # A replica lets a subscriber listen. A read that waits for the answer to a command must get that answer.
            if options.get("push_request") and self._standing.is_stale:
                await self.disconnect(nowait=True)
                raise Demoted("The server is no primary any more.")
            try:
                return await super().read_response(*args, **options)
            except redis.exceptions.RedisError as error:
                if not is_demoted(error):
                    raise
                await self.disconnect(nowait=True)
                raise self._standing.refused(error) from error

    return Following
