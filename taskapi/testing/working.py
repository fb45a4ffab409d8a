"""A worker inside the process of the tests, for tests that go through REST or a socket."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.db import connections, router
from django.db.backends.signals import connection_created

from taskapi import backends, events
from taskapi.backends import Backend
from taskapi.engines.threads import HostThread
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo
from taskapi.protocol.states import Status
from taskapi.testing.files import in_files
from taskapi.workers.host import DEFAULT_CONCURRENCY

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds
JOIN_LIMIT = 5.0  # seconds for the threads of the host to end
OURS = "taskapi-"  # the beginning of the names of its threads
WATCH = "taskapi-watch"  # of the process, for as long as that lives (taskapi.store.silence)


class WorkingBackend(Backend):
    """Gives runs to a host in this process."""

    other_processes = False
    events_in_process = True

    def __init__(self, host: HostThread) -> None:
        self._host = host

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        self._host.execute(uuid, run_at)


class worker:  # noqa: N801 - it is called like a function
    """Executes runs in this process while the block runs, in place of the backend: `with worker():`, or `async with`.

    At its end, the block waits until the runs have ended, for `patience` seconds at most, and leaves no thread and no
    connection behind. Then it raises TimeoutError if some have not ended.
    """

    def __init__(self, *, concurrency: int = DEFAULT_CONCURRENCY, patience: float = PATIENCE) -> None:
        self._concurrency = concurrency
        self._patience = patience

    def __enter__(self) -> Self:
        _with_its_connections(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _with_its_connections(partial(self._end, error))

    async def __aenter__(self) -> Self:
        await sync_to_async(self._begin)()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await sync_to_async(self._end)(error)

    def join(self) -> None:
        """Wait until the runs have ended that were started so far; TimeoutError after `patience` seconds.

        A run whose `delay` is longer than that is not waited for.
        """
        _with_its_connections(self._join)

    async def ajoin(self) -> None:
        """As `join`, for async code."""
        await sync_to_async(self._join)()

    def _begin(self) -> None:
        _refuse_a_transaction()
        self._host = HostThread(self._concurrency, self._patience)
        with ExitStack() as stack:
            stack.enter_context(in_files())
            stack.enter_context(_left_to_nobody())
            stack.enter_context(backends.using(WorkingBackend(self._host)))
            stack.enter_context(events.using(InProcessEvents()))
            self._host.start()
            stack.callback(self._host.stop)
            waiting = TaskInfo.rows().filter(status=Status.PENDING.value).order_by("id")
            for uuid, run_at in waiting.values_list("uuid", "run_at"):
                self._host.execute(uuid, run_at)
            self._stack = stack.pop_all()

    def _end(self, error: BaseException | None) -> None:
        with self._stack:
            if error is None:
                self._join()

    def _join(self) -> None:
        left = self._host.wait(self._patience)
        if left:
            found = TaskInfo.rows().filter(uuid__in=left).order_by("id")
            named = ", ".join(f"{info.uuid} (task {info.task!r}, {info.status})" for info in found)
            raise TimeoutError(f"After {self._patience:g} s, these runs have not ended: {named}.")


def _with_its_connections(function: Callable[[], object]) -> None:
    """Call it; on an event loop, in the thread where the async ORM of that loop has its connections.

    That holds up the loop. A test that minds has `async with`.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        function()
        return
    # as `sync_to_async` chooses
    executor = getattr(AsyncToSync.executors, "current", None) or AsyncToSync.loop_thread_executors.get(loop)
    (executor or SyncToAsync.single_thread_executor).submit(function).result()


def _refuse_a_transaction() -> None:
    if connections[router.db_for_write(TaskInfo)].in_atomic_block:
        raise RuntimeError(
            "worker() executes runs in threads of its own, and those see nothing of the transaction that this test is "
            "in. Use TransactionTestCase in place of TestCase (in pytest `@pytest.mark.django_db(transaction=True)`, "
            "or the fixture `taskapi_worker`). Or call run_task(), which needs no worker."
        )


@contextmanager
def _left_to_nobody() -> Iterator[None]:
    """At the end of the block, wait for the threads that were started in it, and close the connections of theirs.

    A connection that stays open would keep the test database from being destroyed.
    """
    before = set(threading.enumerate())
    opened: list[tuple[threading.Thread, Any]] = []

    def record(connection: Any, **_: object) -> None:
        if threading.current_thread() not in before:
            opened.append((threading.current_thread(), connection))

    with _connected(record):
        try:
            yield
        finally:
            deadline = time.monotonic() + JOIN_LIMIT
            for thread in set(threading.enumerate()) - before:
                if thread.name.startswith(OURS) and thread.name != WATCH:
                    thread.join(max(0.0, deadline - time.monotonic()))
    for thread, connection in opened:
        if thread.is_alive():
            if thread.name.startswith(OURS):
                logger.warning("The thread %s of a task has not ended, and may keep a connection open.", thread.name)
        elif connection.connection is not None:
            connection.inc_thread_sharing()  # its thread has ended, so this one may close it
            connection.close()


@contextmanager
def _connected(receiver: Callable[..., None]) -> Iterator[None]:
    connection_created.connect(receiver)
    try:
        yield
    finally:
        connection_created.disconnect(receiver)
