"""Database work from asynchronous code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FROZEN_AFTER = 10_000  # milliseconds between two statements of a transaction: a lease's length (taskapi.runs)


@contextmanager
def workers_transaction(using: str) -> Iterator[None]:
    """A transaction on runs, whose locks do not outlast the lease of a worker that freezes inside it.

    On PostgreSQL, which ends it then. Asked for in each transaction, because a connection of PgBouncer's is somebody
    else's in the next. It is one statement more, of 0.07 ms.
    """
    with transaction.atomic(using):
        connection = connections[using]
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN_AFTER}")
        yield


def keep_connections() -> None:
    """Make this thread's connections ready for more work: broken ones are closed, good ones stay open.

    Django ends a connection with the request that opened it (CONN_MAX_AGE, 0 by default). A thread that
    serves sockets or writes runs for as long as its process lives has no such end, and a new connection for
    each statement costs more than the statement (5 ms on PostgreSQL).
    """
    for connection in connections.all(initialized_only=True):
        connection.close_at = None
        connection.close_if_unusable_or_obsolete()


def tidy_connections(run: object) -> None:
    """Leave this thread's connections as a new thread has them: of what the run has done, nothing stays.

    One inside a transaction is closed, and with it goes what Django remembers of it.
    """
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        if connection.in_atomic_block or (
            connection.connection is not None and connection.autocommit is not connection.settings_dict["AUTOCOMMIT"]
        ):
            logger.warning(
                "Run %s left its connection to the database %r inside a transaction, or with autocommit changed. The "
                "connection is closed: what was not committed is lost. End each transaction inside the task.",
                run,
                connection.alias,
            )
        elif not connection.execute_wrappers and not connection.force_debug_cursor:
            connection.close_if_unusable_or_obsolete()
            continue
        with suppress(DatabaseError):
            connection.close()
        del connections[connection.alias]


def forget_queries() -> None:
    """Let go of what DEBUG keeps of this thread's queries: nobody asks a thread that serves no request."""
    if not settings.DEBUG:
        return
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` on the process's database thread: keep it short, all sockets wait behind it.

    It is called again where the first call found the connection dead: the database was restarted meanwhile.
    """

    def call() -> T:
        keep_connections()
        try:
            return called()
        finally:
            forget_queries()

    def called() -> T:
        opened = [(connection, connection.connection) for connection in connections.all(initialized_only=True)]
        try:
            return function(*args, **kwargs)
        except (OperationalError, InterfaceError):
            dead = [connection for connection, was in opened if was is not None and _is_dead(connection, was)]
            for connection in dead:
                connection.close()
            if not dead:
                raise
        return function(*args, **kwargs)

    return await sync_to_async(call, thread_sensitive=True)()


def _is_dead(connection: BaseDatabaseWrapper, was: Any) -> bool:
    """Whether the driver's connection that there was is none any more: a transaction that fails may have left it."""
    return connection.connection is not was or not (connection.in_atomic_block or connection.is_usable())
