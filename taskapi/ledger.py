"""How runs' rows are written: many writes in one transaction where many wait.

A transaction costs about the same for one write as for twenty (on SQLite and on PostgreSQL alike the commit
is what takes long), so the writes that arrive while one is under way share the next. A worker has a thread for
it, which runs nothing else: status and progress never queue behind a task's own code or queries.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from django.db import InterfaceError, InternalError, OperationalError, connections, router

from taskapi.database import in_database, keep_connections, workers_transaction
from taskapi.models import TaskInfo

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WRITES = 100  # in one transaction: bounds how long it holds SQLite's one write lock
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries while the database is away; doubling
GIVE_UP = 600.0  # seconds after which a write that never succeeds is taken for the fault

#: What a database raises that is away, is busy for longer than it should be, or (InternalError) has ended a
#: transaction in which this process was frozen.
AWAY = (OperationalError, InterfaceError, InternalError)


class _Write(NamedTuple):
    function: Callable[[], Any]
    done: asyncio.Future[Any]


class _Outcome(NamedTuple):
    result: Any
    error: Exception | None


class Ledger(ABC):
    """Group commit, for one event loop."""

    patience: float  # seconds for which a write is tried again while the database is away

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread, inside a transaction, and return what it returns.

        It may be called a second time, after a rollback, where a neighbour in the transaction failed.
        """
        write = _Write(function, self._loop.create_future())
        self._waiting.append(write)
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._drain())
        result: T = await write.done
        return result

    async def close(self) -> None:
        """Finish what waits."""
        if self._writing is not None:
            await self._writing

    @abstractmethod
    async def _in_thread(self, function: Callable[[], T]) -> T: ...

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_WRITES], self._waiting[MOST_WRITES:]
            outcomes = await self._commit(batch)
            for write, (result, error) in zip(batch, outcomes, strict=True):
                if write.done.done():
                    continue  # whoever waited was cancelled; the write holds all the same
                if error is None:
                    write.done.set_result(result)
                else:
                    write.done.set_exception(error)

    async def _commit(self, batch: list[_Write]) -> list[_Outcome]:
        """Write all in one transaction; where that fails, each in its own, so that nobody suffers from a neighbour."""
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience
        while True:
            try:
                return await self._in_thread(partial(_write, batch))
            except Exception as error:  # noqa: BLE001 - it goes to whoever wrote
                away = isinstance(error, AWAY)
                if len(batch) == 1 and (not away or self._loop.time() > given_up_at):
                    return [_Outcome(None, error)]
                problem = str(error)
            if away:
                logger.warning("The database does not take writes (%s); next try in %.1f s.", problem, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
            if len(batch) > 1:
                return [outcome for write in batch for outcome in await self._commit([write])]


class WorkerLedger(Ledger):
    """A worker's: on a thread of its own, and patient, because what a task has done is done."""

    patience = GIVE_UP

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="taskapi-ledger")

    async def close(self) -> None:
        """Finish what waits, then close the thread and its connections."""
        await super().close()
        await self._loop.run_in_executor(self._thread, connections.close_all)
        self._thread.shutdown()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        def call() -> T:
            keep_connections()
            return function()

        return await self._loop.run_in_executor(self._thread, call)


class ServerLedger(Ledger):
    """A server's: on the thread of its other rows. Somebody waits for an answer, and can ask again."""

    patience = 0.0

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await in_database(function)


_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, ServerLedger] = WeakKeyDictionary()


def get_ledger() -> ServerLedger:
    """The server's ledger of the running event loop."""
    loop = asyncio.get_running_loop()
    ledger = _ledgers.get(loop)
    if ledger is None:
        ledger = _ledgers[loop] = ServerLedger()
    return ledger


def _write(batch: list[_Write]) -> list[_Outcome]:
    with workers_transaction(router.db_for_write(TaskInfo)):
        return [_Outcome(write.function(), None) for write in batch]
