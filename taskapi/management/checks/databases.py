"""Whether the databases are set up for several processes, and for a host that stops answering."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections

BUSY_TIMEOUT = 5  # seconds: sqlite3's own default, which Django keeps; less is too little with several processes


def check_sqlite(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """SQLite waits for its lock and does not lock out readers: several processes write to it."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "sqlite" or connection.is_in_memory_db():  # type: ignore[attr-defined]  # sqlite's own
            continue
        with connection.cursor() as cursor:
            (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
            (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        begins = connection.transaction_mode or "DEFERRED"  # type: ignore[attr-defined]  # sqlite's own
        if mode.lower() != "wal" or timeout < BUSY_TIMEOUT * 1000 or begins == "DEFERRED":
            messages.append(
                checks.Warning(
                    f"DATABASES[{alias!r}] is SQLite with journal_mode={mode} and busy_timeout={timeout} ms, whose "
                    f"transactions begin {begins}: if a worker and a server write at once, one gets “database is "
                    "locked”.",
                    hint="Set OPTIONS = {'timeout': 20, 'transaction_mode': 'IMMEDIATE', 'init_command': "
                    "'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'}.",
                    id="taskapi.W001",
                )
            )
    return messages


def check_postgresql(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A connection to PostgreSQL on another host is given up after some seconds without an answer."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        options = connection.settings_dict.get("OPTIONS", {})
        if connection.vendor != "postgresql" or "service" in options:  # the service file may have the options
            continue
        host = str(options.get("host", connection.settings_dict.get("HOST", "")))
        if host == "" or host.startswith(("/", "@")):  # a Unix socket
            continue
        missing = []
        if "connect_timeout" not in options and "PGCONNECT_TIMEOUT" not in os.environ:
            missing.append("connect_timeout")
        if not options.keys() & {"tcp_user_timeout", "keepalives_idle"}:
            missing.append("tcp_user_timeout")
        if missing:
            messages.append(
                checks.Warning(
                    f"DATABASES[{alias!r}] is PostgreSQL without {' and '.join(missing)}: if its host stops "
                    "answering, requests and tasks wait for a quarter of an hour.",
                    hint="Add to OPTIONS: {'connect_timeout': 5, 'tcp_user_timeout': 10000, 'keepalives_idle': 5, "
                    "'keepalives_interval': 2, 'keepalives_count': 3}.",
                    id="taskapi.W009",
                )
            )
    return messages
