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

from django.db import InterfaceError, InternalError, OperationalError, connections, router

from taskapi.backends import get_backend
from taskapi.database import in_database, keep_connections, workers_transaction
from taskapi.loops import of_loop
from taskapi.models import TaskInfo

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WRITES = 100  # in one transaction: bounds how long it holds SQLite's one write lock
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # seconds between two tries while the database is away; doubling
GIVE_UP = 600.0  # seconds after which a write that never succeeds is taken for the fault

#: What a database raises that is away, is busy for longer than it should be, or (InternalError) has ended a
#: transaction in which this process was frozen.
AWAY = (OperationalError, InterfaceError, InternalError)


class _Outcome(NamedTuple):
    result: Any
    error: BaseException | None


class _Write:
    """One caller's. Its preparation is done once, however often it is written."""

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], Any] | None, done: asyncio.Future[Any]):
        self.done = done
        self._function = function
        self._prepare = prepare
        self._prepared: _Outcome | None = None

    def prepare(self) -> None:
        if self._prepare is None or self._prepared is not None:
            return
        try:
            self._prepared = _Outcome(self._prepare(), None)
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - it goes to whoever wrote
            self._prepared = _Outcome(None, error)

    def write(self) -> _Outcome:
        if self._prepared is None:
            return _Outcome(self._function(), None)
        if self._prepared.error is not None:
            return self._prepared
        return _Outcome(self._function(self._prepared.result), None)

    def tell(self, outcome: _Outcome) -> None:
        if self.done.done():
            return  # whoever waited was cancelled; the write holds all the same
        if outcome.error is None:
            self.done.set_result(outcome.result)
        elif isinstance(outcome.error, StopIteration):  # which a future does not take
            self.done.set_exception(RuntimeError(f"It raised {outcome.error!r}."))
        else:
            self.done.set_exception(outcome.error)


class Ledger(ABC):
    """Group commit, for one event loop."""

    patience: float  # seconds for which a write is tried again while the database is away

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Write] = []
        self._writing: asyncio.Future[Any] | None = None

    async def write(self, function: Callable[..., T], *, prepare: Callable[[], Any] | None = None) -> T:
        """Call `function` in a thread, inside a transaction, and return what it returns.

        It may be called a second time, after a rollback, where a neighbour in the transaction failed. `prepare`, if
        given, is called before the transaction, once, and what it returns is the argument of `function`.
        """
        write = _Write(function, prepare, self._loop.create_future())
        self._waiting.append(write)
        if self._writing is None:
            self._write_next()
        result: T = await write.done
        return result

    async def close(self) -> None:
        """Finish what waits."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    @abstractmethod
    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]: ...

    def _write_next(self) -> None:
        """Hand what waits to the thread, now: a run begins with a write, and the loop may have much else to do."""
        batch, self._waiting = self._waiting[:MOST_WRITES], self._waiting[MOST_WRITES:]
        if batch:
            self._writing = self._in_thread(partial(_write, batch))
            self._writing.add_done_callback(partial(self._written, batch))
        else:
            self._writing = None

    def _written(self, batch: list[_Write], writing: asyncio.Future[list[_Outcome]]) -> None:
        if writing.cancelled():
            outcomes = [_Outcome(None, InterfaceError("The writing was cancelled."))] * len(batch)
        elif (error := writing.exception()) is not None:
            self._writing = self._loop.create_task(self._write_each(batch, error))
            self._writing.add_done_callback(lambda writing: self._write_next())
            return
        else:
            outcomes = writing.result()
        for write, outcome in zip(batch, outcomes, strict=True):
            write.tell(outcome)
        self._write_next()

    async def _write_each(self, batch: list[_Write], error: BaseException) -> None:
        """Write each in a transaction of its own, after one for all has failed: nobody suffers from a neighbour."""
        for write in batch:
            write.tell(await self._write_alone(write, error if len(batch) == 1 else None))

    async def _write_alone(self, write: _Write, error: BaseException | None) -> _Outcome:
        """Try until it is written, for as long as the database is away; `error` is that of a first try."""
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience
        while True:
            if error is not None:
                if not isinstance(error, AWAY) or self._loop.time() >= given_up_at:
                    return _Outcome(None, error)
                logger.warning("The database does not take writes (%s); next try in %.1f s.", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
            try:
                (outcome,) = await self._in_thread(partial(_write, [write]))
            except Exception as failure:  # noqa: BLE001 - it goes to whoever wrote
                error = failure
            else:
                return outcome


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

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        def call() -> T:
            keep_connections()
            return function()

        return self._loop.run_in_executor(self._thread, call)


class ServerLedger(Ledger):
    """A server's: on the thread of its other rows. Somebody waits for an answer, and can ask again."""

    patience = 0.0

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return self._loop.create_task(in_database(function))


def get_ledger() -> ServerLedger:
    """The server's ledger of the running event loop."""
    return of_loop(ServerLedger)


def _write(batch: list[_Write]) -> list[_Outcome]:
    for write in batch:
        write.prepare()
    with get_backend().together(), workers_transaction(router.db_for_write(TaskInfo)):
        return [write.write() for write in batch]
