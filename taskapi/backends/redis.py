"""Redis (or Valkey) by its address: `redis://`, `rediss://`, `unix://`, or Sentinel.

Sentinel is written ``sentinel://[user:password@]host:port,host:port/service[/database]``.

Where Redis fails over behind a name, the old primary goes on as a replica and keeps its connections open: it refuses
what writes, and takes what is published to nobody. So a refusal counts as a dead connection (`follow_primary`): it is
closed, as is each other one of the process to that address when it is used next, and the name is resolved again.
"""

from __future__ import annotations

import atexit
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.exceptions
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff

T = TypeVar("T")

SENTINEL_PORT = 26379
CONNECT_TIMEOUT = 1.0  # seconds: a server that is there answers at once
COMMAND_TIMEOUT = 5.0  # seconds: longer than any command here is asked to wait
SILENCE = 5  # seconds without a word after which a subscriber asks the server whether it is there
DEAD_AFTER = 10_000  # milliseconds in which the server's host has to take what was sent to it
THREAD_TIMEOUT = 1.0  # seconds that a thread waits for an answer: no command of theirs is asked to wait
THREAD_PAUSE = 5.0  # seconds for which threads do not wait again for a server that gave none

SCHEMES = ("redis", "rediss", "unix", "sentinel")


class Sentinel(NamedTuple):
    """What a `sentinel://` address says."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    username: str | None
    password: str | None

    @property
    def connection(self) -> dict[str, Any]:
        """The options of the connections to the master."""
        return {"db": self.database, "username": self.username, "password": self.password}


def check_url(url: str) -> None:
    """Raise ValueError, with a sentence, for an address that no client could be made from."""
    if not isinstance(url, str):
        raise ValueError(f"expected an address such as redis://127.0.0.1:6379/0, got {url!r}")
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"expected an address that begins with one of {', '.join(SCHEMES)}, got {url!r}")
    if parts.scheme == "sentinel":
        parse_sentinel(url)
        return
    if parts.scheme != "unix":
        _database(parts.path.strip("/"))  # redis-py takes database 0 for what is no number; arq does not start
    redis.ConnectionPool.from_url(url)


def _database(text: str) -> int:
    """The number of a database, as an address has it; 0 where it has none."""
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError(f"expected the address to end with the number of a database, got {text!r}")
    return int(text or 0)


def parse_sentinel(url: str) -> Sentinel | None:
    """The parts of a `sentinel://` address; None for another scheme."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if not addresses or not service:
        raise ValueError(f"expected sentinel://host:port,host:port/service, got {url!r}")
    hosts = []
    for address in addresses.split(","):
        host, _, port = address.partition(":")
        hosts.append((host, int(port or SENTINEL_PORT)))
    return Sentinel(tuple(hosts), service, _database(database), unquote(username) or None, unquote(password) or None)


class Breaker:
    """Keeps threads from waiting, one after the other, for a server that takes connections and answers none.

    All sockets of a process share one thread for their rows and for what follows a commit. What is not sent is found
    by its row: so after a call that took too long the next few are refused, with TimeoutError, and not made.
    """

    def __init__(self) -> None:
        self._refusing_until = 0.0

    @contextmanager
    def guard(self) -> Iterator[None]:
        if time.monotonic() < self._refusing_until:
            raise TimeoutError("It gave no answer a moment ago.")
        try:
            yield
        except (TimeoutError, redis.exceptions.TimeoutError):
            self._refusing_until = time.monotonic() + THREAD_PAUSE
            raise


class Demoted(redis.exceptions.ConnectionError):
    """The server at the other end is a replica, or becomes one; what it was asked has not been done."""


#: How a server says so, beside the error of redis-py's own: inside a script, before Redis 7; to what waits for a job at
#: that moment; and where a replica that has lost its primary answers nothing.
REFUSALS = ("-READONLY ", "UNBLOCKED ", "MASTERDOWN ")

_demotions: Counter[str] = Counter()  # by address: how often a connection of this process was refused


def is_demoted(error: BaseException) -> bool:
    """Whether a server refused because it is no primary (any more)."""
    if isinstance(error, (Demoted, redis.exceptions.ReadOnlyError)):
        return True
    if isinstance(error, redis.exceptions.ConnectionError):  # what Sentinel's own connections make of it
        return isinstance(error.__context__, redis.exceptions.ReadOnlyError)
    return isinstance(error, redis.exceptions.ResponseError) and any(refusal in str(error) for refusal in REFUSALS)


class _Retry(redis.retry.Retry):
    """Once more, at once, after Demoted; all other errors are as without it."""

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
    """Have a pool take a server that has become a replica for one that is gone; what that refused is tried once more.

    Any pool of redis-py's, sync or async, before it has a connection. All pools of an address know what one finds.
    """
    is_async = isinstance(pool, redis.asyncio.ConnectionPool)
    following, retry = (_following_async, _AsyncRetry) if is_async else (_following, _Retry)
    usual: Any = pool.connection_class
    pool.connection_class = following(usual, address)
    pool.connection_class.__name__ = usual.__name__  # which tells TLS from TCP
    pool.connection_kwargs["retry"] = retry(NoBackoff(), 0)
    pool.connection_kwargs["retry_on_error"] = [Demoted]


class _Standing:
    """What a connection knows of its address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._seen = _demotions[address]

    def renew(self) -> None:
        """It is connected anew."""
        self._seen = _demotions[self._address]

    @property
    def is_stale(self) -> bool:
        """Whether another connection has found since then that there is no primary at the other end."""
        return self._seen != _demotions[self._address]

    def refused(self, error: Exception) -> Demoted:
        """Let the others know."""
        if not self.is_stale:
            _demotions[self._address] += 1
        return Demoted(f"It is no primary any more: {error}")


@cache
def _following(usual: Any, address: str) -> Any:
    """The class of connections, as one whose connections are closed where they turn out to lead to a replica."""

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
            # A subscriber only listens, and a replica lets it. What waits for the answer to a command has to have it.
            if options.get("push_request") and self._standing.is_stale:
                await self.disconnect(nowait=True)
                raise Demoted("It is no primary any more.")
            try:
                return await super().read_response(*args, **options)
            except redis.exceptions.RedisError as error:
                if not is_demoted(error):
                    raise
                await self.disconnect(nowait=True)
                raise self._standing.refused(error) from error

    return Following


def address_of(host: Mapping[str, Any]) -> str:
    """By what the pools know one another that are made from one address; of an entry of a layer's `hosts`."""
    return str(host.get("address") or host.get("sentinels"))


@cache
def sync_client(url: str) -> redis.Redis:
    """The process's client for threads: its pool is safe to share, and needs no event loop."""
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": THREAD_TIMEOUT,
        "health_check_interval": 30,
    }
    sentinel = parse_sentinel(url)
    client: redis.Redis
    if sentinel is None:
        client = redis.Redis.from_url(url, **options)
    else:
        sentinels = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py's own gap
            list(sentinel.hosts), sentinel_kwargs=options
        )
        client = sentinels.master_for(  # type: ignore[no-untyped-call]
            sentinel.service, **sentinel.connection, **options
        )
    follow_primary(client.connection_pool, address_of(channel_layer_host(url)))
    # redis-py closes its pool when the client is deleted. One that lives as long as its process is deleted when the
    # interpreter has taken redis-py's own modules apart, and that prints an AttributeError.
    client.auto_close_connection_pool = False
    atexit.register(client.connection_pool.disconnect, inuse_connections=False)
    return client


def async_client(url: str) -> redis.asyncio.Redis:
    """A client for the running event loop; whoever makes it closes it."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": COMMAND_TIMEOUT}
    sentinel = parse_sentinel(url)
    client: redis.asyncio.Redis
    if sentinel is None:
        client = redis.asyncio.Redis.from_url(url, **options)
    else:
        sentinels = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            list(sentinel.hosts), sentinel_kwargs=options
        )
        client = sentinels.master_for(sentinel.service, **sentinel.connection, **options)
    follow_primary(client.connection_pool, address_of(channel_layer_host(url)))
    return client


def channel_layer_host(url: str) -> dict[str, Any]:
    """The address as an entry of a channels_redis layer's `hosts`.

    A connection that only listens does not notice that the other end is gone (a host that lost its power, a router
    that forgot it). So it sends a PING now and then, and the kernel ends it where nobody takes that. Both are needed:
    redis-py asks a connection that was ended so for its next message for ever, without a pause, unless it has
    something to send.
    """
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "health_check_interval": SILENCE}
    if urlsplit(url).scheme != "unix" and hasattr(socket, "TCP_USER_TIMEOUT"):  # which is Linux's
        options |= {"socket_keepalive": True, "socket_keepalive_options": {socket.TCP_USER_TIMEOUT: DEAD_AFTER}}
    sentinel = parse_sentinel(url)
    if sentinel is None:
        return {"address": url, **options}
    return {"sentinels": list(sentinel.hosts), "master_name": sentinel.service, **sentinel.connection, **options}
