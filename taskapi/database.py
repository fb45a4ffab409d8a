"""Database work from asynchronous code."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

P = ParamSpec("P")
T = TypeVar("T")

IDLE = 1.0  # seconds after which a connection is asked whether it still is one
_used: WeakKeyDictionary[BaseDatabaseWrapper, float] = WeakKeyDictionary()  # when, on time.monotonic()


def keep_connections() -> None:
    """Make this thread's connections ready for more work: broken ones are closed, good ones stay open.

    Django ends a connection with the request that opened it (CONN_MAX_AGE, 0 by default). A thread that
    serves sockets or writes runs for as long as its process lives has no such end, and a new connection for
    each statement costs more than the statement (5 ms on PostgreSQL).
    """
    now = time.monotonic()
    for connection in connections.all(initialized_only=True):
        connection.close_at = None
        idle = now - _used.get(connection, now) > IDLE
        if idle and not connection.in_atomic_block and not connection.is_usable():
            connection.close()  # the server was restarted meanwhile: better found out here than by a statement
        connection.close_if_unusable_or_obsolete()
        _used[connection] = now


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` on the process's database thread: keep it short, all sockets wait behind it."""

    def call() -> T:
        keep_connections()
        return function(*args, **kwargs)

    return await sync_to_async(call, thread_sensitive=True)()
