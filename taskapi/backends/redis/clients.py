"""The connections to Redis that are made from an address: for threads, for an event loop, and for a channel layer."""

from __future__ import annotations

import atexit
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from taskapi.backends.redis.address import parse_sentinel
from taskapi.backends.redis.primary import follow_primary

CONNECT_TIMEOUT = 1.0  # seconds: a server that is up answers at once
COMMAND_TIMEOUT = 5.0  # seconds: longer than any command here is asked to wait
THREAD_TIMEOUT = 1.0  # seconds that a thread waits for an answer: none of its commands is asked to wait
SILENCE = 5  # seconds without a message after which a subscriber asks the server whether it is up
DEAD_AFTER = 10_000  # milliseconds in which the server's machine has to acknowledge what was sent to it


@cache
def sync_client(url: str) -> redis.Redis:
    """The process's client for threads, which share its pool; it needs no event loop."""
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
    # redis-py closes the pool when the client is deleted. This client is deleted when the interpreter ends and has
    # already taken redis-py's modules apart: that would print an AttributeError.
    client.auto_close_connection_pool = False
    atexit.register(client.connection_pool.disconnect, inuse_connections=False)
    return client


def async_client(url: str) -> redis.asyncio.Redis:
    """A new client for the running event loop; its caller closes it."""
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

    A connection that only listens does not notice that the other end is gone (its machine lost power, or a router
    forgot the connection). So it sends a PING now and then, and the kernel closes it if nobody acknowledges that. Both
    are needed: without a PING, redis-py would read from the closed connection in a busy loop.
    """
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "health_check_interval": SILENCE}
    if urlsplit(url).scheme != "unix" and hasattr(socket, "TCP_USER_TIMEOUT"):  # only Linux has it
        options |= {"socket_keepalive": True, "socket_keepalive_options": {socket.TCP_USER_TIMEOUT: DEAD_AFTER}}
    sentinel = parse_sentinel(url)
    if sentinel is None:
        return {"address": url, **options}
    return {"sentinels": list(sentinel.hosts), "master_name": sentinel.service, **sentinel.connection, **options}


def address_of(host: Mapping[str, Any]) -> str:
    """The key that all pools of one address share, from an entry of a layer's `hosts`."""
    return str(host.get("address") or host.get("sentinels"))
