"""Database work from asynchronous code, and from threads that live as long as their process."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

FROZEN_AFTER = 10_000  # milliseconds between two statements of a transaction: a lease's length (taskapi.runs)
LOCK_WAIT = 250  # milliseconds for which a worker's transaction waits for a lock: its other writes wait as long
REQUEST_LOCK_WAIT = 5_000  # milliseconds for which a request does that changes a run
SILENT_AFTER = FROZEN_AFTER / 1000  # seconds without an answer, after which a connection is taken for dead
LOOK_INTERVAL = 1.0  # seconds between two looks at who waits for an answer
CONNECT_TIMEOUT = 5  # seconds for a new connection of a thread that is watched, if the project does not set any

#: What a database raises that is away, is busy for longer than it should be, or (InternalError) has ended a
#: transaction in which this process was frozen.
AWAY = (OperationalError, InterfaceError, InternalError)


class DatabaseAway(OperationalError):
    """The database did not let a transaction begin: nothing that was to be written in it is to blame."""


# Transactions


@contextmanager
def workers_transaction(using: str, lock_wait: int = LOCK_WAIT) -> Iterator[None]:
    """A transaction on runs that holds up nobody: it waits for no lock longer than `lock_wait` milliseconds.

    And its own locks do not outlast the lease of a worker that freezes inside it: PostgreSQL ends it then. There both
    are asked for in each transaction, because a connection of PgBouncer's is somebody else's in the next. It is one
    statement more, of 0.07 ms. On SQLite it begins with its lock. Raises DatabaseAway if it cannot begin.
    """
    connection: Any = connections[using]
    vendor = connection.vendor
    mode = None
    begun = False
    progressed()
    try:
        if vendor == "sqlite":
            # One that reads before it writes is refused if somebody else has written meanwhile, however long it waits.
            connection.ensure_connection()  # which reads the setting
            mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        elif vendor == "mysql":
            _bound_waits(_bounded(connection))
        else:
            _bounded(connection)
        with transaction.atomic(using):
            if vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN_AFTER};"
                        f" SET LOCAL lock_timeout = {lock_wait}"
                    )
            begun = True
            yield
    except AWAY as error:
        if begun:
            raise
        raise DatabaseAway(*error.args) from error
    finally:
        if vendor == "sqlite":
            connection.transaction_mode = mode


@contextmanager
def requests_transaction(using: str) -> Iterator[None]:
    """A transaction of a request on runs: it waits for no lock longer than somebody waits for the answer.

    On PostgreSQL. MySQL would need a setting of the connection, which is the project's here.
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
    """On MySQL, wait for no lock longer than a second, the least that it knows: once for each connection."""
    connection.ensure_connection()
    if getattr(connection, "_taskapi_bounded", None) is not connection.connection:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        connection._taskapi_bounded = connection.connection  # noqa: SLF001 - our own mark


# Connections of threads that live as long as their process


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
        with watching():
            return call_again_if_dead()

    def call_again_if_dead() -> T:
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
        progressed()
        return function(*args, **kwargs)

    return await sync_to_async(call, thread_sensitive=True)()


def _is_dead(connection: BaseDatabaseWrapper, was: Any) -> bool:
    """Whether the driver's connection that there was is none any more: a transaction that fails may have left it."""
    return connection.connection is not was or not (connection.in_atomic_block or connection.is_usable())


# A server that is silent
#
# A host that went away without a word leaves its connections open, and whoever waits for an answer waits for a quarter
# of an hour: as long as TCP tries. The threads on which all runs depend do not. A call that has lasted for too long has
# its sockets shut down by a thread that watches, the driver raises what it raises for any broken connection, and what
# was asked is asked again as after a restart.


class watching(ContextDecorator):  # noqa: N801 - it is called like a function
    """While it lasts, or while what it decorates does, give up on a database that says nothing for `limit` seconds."""

    def __init__(self, limit: float = SILENT_AFTER) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        if _watch is None:
            _start_to_watch()
        self.thread = threading.get_ident()
        self.connections = _connections_of_this_thread()
        self._outer = _calls.get(self.thread)
        self.since = time.monotonic()
        _calls[self.thread] = self

    def __exit__(self, *_: object) -> None:
        if self._outer is None:
            del _calls[self.thread]
        else:
            self._outer.since = time.monotonic()
            _calls[self.thread] = self._outer

    def _recreate_cm(self) -> watching:
        return watching(self.limit)

    @property
    def name(self) -> str:
        return next((thread.name for thread in threading.enumerate() if thread.ident == self.thread), "that has ended")


_calls: dict[int, watching] = {}  # by the ids of their threads
_mine = threading.local()  # `.connections`: those of the thread, since it was first watched
_watch: threading.Thread | None = None
_starting = threading.Lock()


def progressed() -> None:
    """Tell that the database has answered: what is watched may consist of many transactions."""
    call = _calls.get(threading.get_ident())
    if call is not None:
        call.since = time.monotonic()


def _connections_of_this_thread() -> list[Any]:
    try:
        found: list[Any] = _mine.connections
    except AttributeError:
        connections[DEFAULT_DB_ALIAS]  # it exists from now on, so that it is bounded before it is opened
        found = _mine.connections = list(connections.all(initialized_only=True))
        for connection in found:
            _bounded(connection)
    return found


def _connected(connection: Any, **_: object) -> None:
    """Watch a connection, too, that a watched thread opens."""
    found: list[Any] | None = getattr(_mine, "connections", None)
    if found is not None and not any(connection is known for known in found):
        found.append(connection)


connection_created.connect(_connected)


def _bounded(connection: Any) -> Any:
    """The connection, of a watched thread: it is opened within a time if the project says nothing else."""
    if not hasattr(_mine, "connections"):
        return connection
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor in ("postgresql", "mysql") and "connect_timeout" not in options:
        # a copy: the connections of other threads share these, and are the project's
        options = {**options, "connect_timeout": CONNECT_TIMEOUT}
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
    return connection


def _start_to_watch() -> None:
    global _watch  # noqa: PLW0603 - one for the process
    with _starting:
        if _watch is None:
            _watch = threading.Thread(target=_look, name="taskapi-watch", daemon=True)
            _watch.start()


def _look() -> None:
    while True:
        time.sleep(LOOK_INTERVAL)
        for thread, call in list(_calls.items()):
            if time.monotonic() - call.since > call.limit and _calls.get(thread) is call:
                _give_up(call)


def _give_up(call: watching) -> None:
    call.since = time.monotonic()  # for what it tries next
    if sum(_shut_down(connection) for connection in call.connections):
        logger.warning(
            "The database has not answered the thread %s for %.0f s: its connection is taken for dead, and closed.",
            call.name,
            call.limit,
        )


def _shut_down(connection: Any) -> bool:
    """Shut the socket of a connection down, under the driver that waits for it; False if there is none."""
    try:
        descriptor = os.dup(connection.connection.fileno())
    except Exception:  # noqa: BLE001 - no connection, a closed one, or SQLite's, which has none: each driver has errors of its own
        return False
    with socket.socket(fileno=descriptor) as ours, suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
        return True
    return False


def _after_fork() -> None:
    """A child has no thread but the one that forked it."""
    global _watch, _starting
    _watch, _starting = None, threading.Lock()
    _calls.clear()


os.register_at_fork(after_in_child=_after_fork)
