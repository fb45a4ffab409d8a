"""Redis (or Valkey) by its address: `redis://`, `rediss://`, `unix://`, or Sentinel.

Sentinel is written ``sentinel://[user:password@]host:port,host:port/service[/database]``.
"""

from __future__ import annotations

import atexit
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.exceptions
import redis.sentinel

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


@cache
def sync_client(url: str) -> redis.Redis:
    """The process's client for threads: its pool is safe to share, and needs no event loop."""
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": THREAD_TIMEOUT,
        "health_check_interval": 30,
    }
    sentinel = parse_sentinel(url)
    if sentinel is None:
        return _closed_at_exit(redis.Redis.from_url(url, **options))
    sentinels = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py's own gap
        list(sentinel.hosts), sentinel_kwargs=options
    )
    client: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        sentinel.service, **sentinel.connection, **options
    )
    return _closed_at_exit(client)


def _closed_at_exit(client: redis.Redis) -> redis.Redis:
    """Have its pool closed while the process ends.

    redis-py does it when the client is deleted. One that lives as long as its process is deleted when the interpreter
    has taken redis-py's own modules apart, and that prints an AttributeError.
    """
    client.auto_close_connection_pool = False
    atexit.register(client.connection_pool.disconnect, inuse_connections=False)
    return client


def async_client(url: str) -> redis.asyncio.Redis:
    """A client for the running event loop; whoever makes it closes it."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": COMMAND_TIMEOUT}
    sentinel = parse_sentinel(url)
    if sentinel is None:
        made: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, **options)
        return made
    sentinels = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(sentinel.hosts), sentinel_kwargs=options
    )
    client: redis.asyncio.Redis = sentinels.master_for(sentinel.service, **sentinel.connection, **options)
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
