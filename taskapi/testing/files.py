"""SQLite in memory, where Django keeps a test database, is not for several threads: they lock each other out."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asgiref.sync import SyncToAsync
from django.db import connections, router

from taskapi.models import TaskInfo

BUSY_TIMEOUT = 20  # seconds


@contextmanager
def in_files() -> Iterator[None]:
    """While the block runs, SQLite databases that are in memory are in files, with all that is in them."""
    with TemporaryDirectory(prefix="taskapi-") as folder, ExitStack() as stack:
        connections[router.db_for_write(TaskInfo)].ensure_connection()
        for connection in connections.all(initialized_only=True):
            if _is_in_memory(connection) and connection.connection is not None:
                stack.enter_context(_in_file(connection, Path(folder) / connection.alias))
        yield


def _is_in_memory(connection: Any) -> bool:
    return connection.vendor == "sqlite" and bool(connection.is_in_memory_db())


@contextmanager
def _in_file(connection: Any, path: Path) -> Iterator[None]:
    memory = connection.connection
    with closing(sqlite3.connect(path)) as file:
        memory.backup(file)
        file.execute("PRAGMA journal_mode=WAL")
    settings = connection.settings_dict  # the same for the connections of all threads
    before = {name: settings[name] for name in ("NAME", "OPTIONS")}
    _in_the_thread_of_async_code(lambda: _let_go(connection.alias))
    connection.connection = None
    options = {"timeout": BUSY_TIMEOUT, "transaction_mode": "IMMEDIATE"}
    settings.update(NAME=str(path), OPTIONS={**before["OPTIONS"], **options})
    try:
        yield
    finally:
        connection.close()
        _in_the_thread_of_async_code(connections.close_all)
        settings.update(before)
        with closing(sqlite3.connect(path)) as file:
            file.backup(memory)
        connection.connection = memory


def _in_the_thread_of_async_code(function: Callable[[], object]) -> None:
    """Call it in the thread that the async ORM uses outside of any `async_to_sync`; its connections outlive a test."""
    executor = SyncToAsync.single_thread_executor
    if threading.current_thread() not in executor._threads:  # noqa: SLF001 - else this would wait for itself
        executor.submit(function).result()


def _let_go(alias: str) -> None:
    """Close the connection of this thread to a database in memory, which `close()` would not do."""
    connection: Any = connections[alias]
    if connection.connection is not None:
        connection.connection.close()
        connection.connection = None
