"""Gives up on a database that is silent.

A host that goes away without a word leaves its connections open, and a thread that waits for an answer waits as long as
TCP tries: a quarter of an hour. The threads on which all runs depend must not. So another thread watches their calls.
If one lasts too long, it shuts down the sockets of the call's connections. The driver then raises what it raises for
any broken connection, and the call is tried again as after a restart of the database.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import ContextDecorator, suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.signals import connection_created

logger = logging.getLogger(__name__)

SILENT_AFTER = 10.0  # seconds without an answer, after which a connection is taken for dead: a lease's length
LOOK_INTERVAL = 1.0  # seconds between two looks at the calls
CONNECT_TIMEOUT = 5  # seconds for a new connection of a watched thread, if the project does not set any


class watching(ContextDecorator):  # noqa: N801 - it is called like a function
    """While the block or the decorated function runs, give up on a database that is silent for `limit` seconds."""

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
    """Tell the watch that the database has answered: a watched call may consist of many transactions."""
    call = _calls.get(threading.get_ident())
    if call is not None:
        call.since = time.monotonic()


def bounded(connection: Any) -> Any:
    """The connection; in a watched thread with a time limit for opening it, if the project sets none."""
    if not hasattr(_mine, "connections"):
        return connection
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor in ("postgresql", "mysql") and "connect_timeout" not in options:
        # a copy: the connections of other threads share this dict, and are the project's
        options = {**options, "connect_timeout": CONNECT_TIMEOUT}
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
    return connection


def _connections_of_this_thread() -> list[Any]:
    try:
        found: list[Any] = _mine.connections
    except AttributeError:
        connections[DEFAULT_DB_ALIAS]  # it exists from now on, so that it is bounded before it is opened
        found = _mine.connections = list(connections.all(initialized_only=True))
        for connection in found:
            bounded(connection)
    return found


def _connected(connection: Any, **_: object) -> None:
    """Watch the new connections of a watched thread, too."""
    found: list[Any] | None = getattr(_mine, "connections", None)
    if found is not None and not any(connection is known for known in found):
        found.append(connection)


connection_created.connect(_connected)


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
    call.since = time.monotonic()  # for its next try
    if sum(_shut_down(connection) for connection in call.connections):
        logger.warning(
            "The database has not answered the thread %s for %.0f s: its connection is taken for dead, and closed.",
            call.name,
            call.limit,
        )


def _shut_down(connection: Any) -> bool:
    """Shut down the socket on which a connection's driver waits; False if there is none."""
    try:
        descriptor = os.dup(connection.connection.fileno())
    except Exception:  # noqa: BLE001 - not connected, or SQLite, which has no socket: each driver has errors of its own
        return False
    with socket.socket(fileno=descriptor) as ours, suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
        return True
    return False


def _after_fork() -> None:
    """A child process has only the thread that forked it."""
    global _watch, _starting
    _watch, _starting = None, threading.Lock()
    _calls.clear()


os.register_at_fork(after_in_child=_after_fork)
