"""Transactions on runs, and connections of threads that live as long as their process."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from taskapi.store.silence import bounded, progressed, watching

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FROZEN_AFTER = 10_000  # milliseconds between two statements of a transaction: a lease's length (taskapi.runs)
IDLE_FOR = 2.0  # seconds: a network may drop what is idle for long without a word, and then it is waited for in vain
LOCK_WAIT = 250  # milliseconds for which a worker's transaction waits for a lock: its other writes wait as long
REQUEST_LOCK_WAIT = 5_000  # milliseconds for which a request that changes a run waits for a lock

#: Statements that leave nothing in the session of their connection.
_OF_ROWS = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)

#: The database is away, or is busy for longer than it should be.
AWAY = (OperationalError, InterfaceError)
#: The same, or (InternalError) it has ended a transaction in which this process was frozen.
TRANSIENT = (*AWAY, InternalError)


class DatabaseAway(OperationalError):
    """No transaction could begin: the writes that were to be made in it are not to blame."""


# Transactions


@contextmanager
def workers_transaction(using: str, lock_wait: int = LOCK_WAIT) -> Iterator[None]:
    """A transaction on runs that waits for no lock longer than `lock_wait` milliseconds.

    And its own locks do not outlast the lease of a worker that freezes inside it: PostgreSQL ends it then. On
    PostgreSQL each transaction asks for both, because PgBouncer may give its connection to another client in the next.
    That is one more statement, of 0.07 ms. On SQLite it begins with its lock. Raises DatabaseAway if it cannot begin.
    """
    connection: Any = connections[using]
    vendor = connection.vendor
    mode = None
    begun = False
    progressed()
    try:
        if vendor == "sqlite":
            # A transaction that reads before it writes fails if another has written meanwhile, however long it waits.
            connection.ensure_connection()  # which reads the setting
            mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        elif vendor == "mysql":
            _bound_waits(bounded(connection))
        else:
            bounded(connection)
        with transaction.atomic(using):
            if vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN_AFTER};"
                        f" SET LOCAL lock_timeout = {lock_wait}"
                    )
            begun = True
            yield
    except TRANSIENT as error:
        if begun:
            raise
        raise DatabaseAway(*error.args) from error
    finally:
        if vendor == "sqlite":
            connection.transaction_mode = mode


@contextmanager
def requests_transaction(using: str) -> Iterator[None]:
    """A transaction of a request on runs: on PostgreSQL it waits for no lock longer than a client waits for an answer.

    On MySQL this would need a setting of the connection, and that is the project's here.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {REQUEST_LOCK_WAIT}")
        yield


def _bound_waits(connection: Any) -> None:
    """On MySQL, wait for no lock longer than a second, the shortest that it knows: once for each connection."""
    connection.ensure_connection()
    if getattr(connection, "_taskapi_bounded", None) is not connection.connection:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        connection._taskapi_bounded = connection.connection  # noqa: SLF001 - our own mark


# Connections of threads that live as long as their process


def keep_connections() -> None:
    """Make this thread's connections ready for more work: close broken ones, keep good ones open.

    Django closes a connection at the end of the request that opened it (CONN_MAX_AGE is 0 by default). A thread that
    serves sockets or writes runs serves no request, and a new connection for each statement would cost more than the
    statement (5 ms on PostgreSQL). A connection inside a transaction is left alone: it is that of a TestCase, in whose
    thread this is called.
    """
    for connection in connections.all(initialized_only=True):
        connection.close_at = None
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


@contextmanager
def borrowed_connections() -> Iterator[None]:
    """Lend this thread's connections to a request; afterwards they are kept, with nothing of what its middleware did.

    A connection that has executed anything but reads and writes of rows, such as SET, is closed: nobody knows what was
    left in its session.
    """
    changed = set()

    def look(execute: Callable[..., T], sql: Any, params: Any, many: bool, context: Any) -> T:
        connection = context["connection"]
        text = str(sql)
        is_djangos = connection.vendor == "sqlite" and text.startswith("BEGIN")
        if "set_config" in text or not (is_djangos or _OF_ROWS.match(text)):
            changed.add(connection)
        return execute(sql, params, many, context)

    keep_connections()
    with ExitStack() as looking:
        for connection in connections.all():
            looking.enter_context(connection.execute_wrapper(look))
        yield
    for connection in connections.all(initialized_only=True):
        if connection in changed:
            connection.close()
        connection.close_at = time.monotonic() + IDLE_FOR
    tidy_connections("a poll", "The middleware of")


def tidy_connections(run: object, kind: str = "Run") -> None:
    """Leave this thread's connections as a new thread has them: nothing stays of what the run has done.

    A connection inside a transaction is closed, and what Django remembers of it is forgotten.
    """
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        if connection.in_atomic_block or (
            connection.connection is not None and connection.autocommit is not connection.settings_dict["AUTOCOMMIT"]
        ):
            logger.warning(
                "%s %s left its connection to the database %r inside a transaction, or with autocommit changed. The "
                "connection is closed: what was not committed is lost. End each transaction where it was begun.",
                kind,
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
    """Delete what DEBUG keeps of this thread's queries: Django does so at the start of a request, and there is none."""
    if not settings.DEBUG:
        return
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` on the process's database thread: keep it short, all sockets wait for it.

    It is called again if the first call found its connection dead: the database was restarted meanwhile.
    """

    def call() -> T:
        with watching():
            return call_again_if_dead()

    def call_again_if_dead() -> T:
        keep_connections()
        try:
            return called()
        finally:
            forget_queries()

    def called() -> T:
        opened = open_connections()
        try:
            return function(*args, **kwargs)
        except AWAY:
            if not close_dead_connections(opened):
                raise
        progressed()
        return function(*args, **kwargs)

    # A request under ASGI has a thread of its own, which ends with the request. This is about the process's.
    context = SyncToAsync.thread_sensitive_context
    token = context.set(None)  # type: ignore[arg-type]  # as if there were none: it has no other way to leave it
    try:
        return await sync_to_async(call, thread_sensitive=True)()
    finally:
        context.reset(token)


def open_connections() -> list[tuple[BaseDatabaseWrapper, Any]]:
    """The open connections of this thread, each with the driver's."""
    everyone = connections.all(initialized_only=True)
    return [(connection, connection.connection) for connection in everyone if connection.connection is not None]


def close_dead_connections(opened: list[tuple[BaseDatabaseWrapper, Any]]) -> bool:
    """Close those that are dead by now; False if none is. The database was restarted since they were last used."""
    dead = [connection for connection, was in opened if _is_dead(connection, was)]
    for connection in dead:
        connection.close()
    return bool(dead)


def _is_dead(connection: BaseDatabaseWrapper, was: Any) -> bool:
    """Whether the driver's connection of before is dead: a transaction that fails may have closed it already."""
    return connection.connection is not was or not (connection.in_atomic_block or connection.is_usable())
