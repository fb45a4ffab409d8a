"""Database work from asynchronous code."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connections

P = ParamSpec("P")
T = TypeVar("T")


def keep_connections() -> None:
    """Make this thread's connections ready for more work: broken ones are closed, good ones stay open.

    Django ends a connection with the request that opened it (CONN_MAX_AGE, 0 by default). A thread that
    serves sockets or writes runs for as long as its process lives has no such end, and a new connection for
    each statement costs more than the statement (5 ms on PostgreSQL).
    """
    for connection in connections.all(initialized_only=True):
        connection.close_at = None
        connection.close_if_unusable_or_obsolete()


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` on the process's database thread: keep it short, all sockets wait behind it.

    It is called again where the first call found the connection dead: the database was restarted meanwhile.
    """

    def call() -> T:
        keep_connections()
        try:
            return function(*args, **kwargs)
        except (OperationalError, InterfaceError):
            if not _close_dead_connections():
                raise
        return function(*args, **kwargs)

    return await sync_to_async(call, thread_sensitive=True)()


def _close_dead_connections() -> bool:
    """Close this thread's connections that are none any more; whether there was one."""
    dead = [
        connection
        for connection in connections.all(initialized_only=True)
        if connection.connection is not None and not connection.in_atomic_block and not connection.is_usable()
    ]
    for connection in dead:
        connection.close()
    return bool(dead)
