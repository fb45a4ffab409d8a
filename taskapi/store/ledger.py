"""Group commit of runs' rows: writes that wait share one transaction.

A transaction takes about as long for one write as for twenty: on SQLite and PostgreSQL alike, the commit is what takes
long. So the writes that arrive while one transaction is under way share the next. A worker has a thread for them that
does nothing else: status and progress never wait for a task's code or queries.

No write waits for its neighbours. A transaction waits only a moment for a lock. If it fails, each of its writes is
tried in a transaction of its own. If one fails there, too (its row is locked, say), it is tried further beside the
ledger, on another thread. All writes wait only while no transaction can begin at all.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.db import InterfaceError, connections

from taskapi.store.database import LOCK_WAIT, TRANSIENT, DatabaseAway, forget_queries, in_database, keep_connections
from taskapi.store.loops import one_per_loop
from taskapi.store.silence import watching
from taskapi.store.writes import Result, Write, is_locked, tell, write_and_close, write_together

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WRITES = 100  # in one transaction: bounds how long it holds SQLite's one write lock
LOCK_WAIT_ALONE = 50  # milliseconds for each write of a transaction that has failed: they wait for one another
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two tries while the database is away; doubling
GIVE_UP = 600.0  # seconds after which a write that never succeeds is taken for the fault
ANSWER_LIMIT = 5.0  # seconds for which a server retries a write whose row is locked


class Ledger(ABC):
    """Group commit, for one event loop."""

    lock_wait: int  # milliseconds for which a transaction waits for a lock
    patience: float  # seconds for which writes are retried while the database is away
    patience_beside: float  # seconds for which a write that fails alone is retried

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Write] = []
        self._writing: asyncio.Future[Any] | None = None
        self._beside: set[asyncio.Task[None]] = set()  # retries of writes that failed alone
        self._spare: ThreadPoolExecutor | None = None  # their thread, while there are any

    async def write(self, function: Callable[..., T], *, prepare: Callable[[], Any] | None = None) -> T:
        """Call `function` in a thread, inside a transaction, and return what it returns.

        It may be called again after a rollback, for instance because a neighbour in the transaction failed. `prepare`,
        if given, is called once, before the transaction; what it returns is the argument of `function`.
        """
        write = Write(function, prepare, self._loop.create_future())
        self._waiting.append(write)
        if self._writing is None:
            self._write_next()
        result: T = await write.done
        return result

    async def close(self) -> None:
        """Finish the writes that wait."""
        while self._writing is not None or self._beside:
            await asyncio.wait({self._writing} if self._writing is not None else self._beside)

    @abstractmethod
    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]: ...

    def _write_next(self) -> None:
        """Hand the waiting writes to the thread now, and not in the loop's next turn: that may be late."""
        batch, self._waiting = self._waiting[:MOST_WRITES], self._waiting[MOST_WRITES:]
        if batch:
            self._writing = self._in_thread(partial(write_together, batch, self.lock_wait))
            self._writing.add_done_callback(partial(self._written, batch))
        else:
            self._writing = None

    def _written(self, batch: list[Write], writing: asyncio.Future[list[Result]]) -> None:
        if writing.cancelled():
            results = [Result(None, InterfaceError("The writing was cancelled."))] * len(batch)
        elif (error := writing.exception()) is not None:
            self._writing = self._loop.create_task(self._write_after_all(batch, error))
            self._writing.add_done_callback(lambda writing: self._write_next())
            return
        else:
            results = writing.result()
        tell(batch, results)
        self._write_next()

    async def _write_after_all(self, batch: list[Write], error: BaseException) -> None:
        """After a transaction has failed: make each of its writes, or report its error, or retry it beside."""
        failure: BaseException | None = error
        while failure is not None:
            if isinstance(failure, DatabaseAway):
                failure = await self._outwait(batch, failure)
            elif len(batch) == 1:
                self._failed_alone(batch[0], failure)
                return
            else:
                batch, failure = await self._write_each(batch)

    async def _write_each(self, batch: list[Write]) -> tuple[list[Write], BaseException | None]:
        """Make each write in a transaction of its own; if no transaction can begin, the rest of them and the error."""
        for n, write in enumerate(batch):
            failure = await self._try([write], LOCK_WAIT_ALONE)
            if isinstance(failure, DatabaseAway):
                return batch[n:], failure
            if failure is not None:
                self._failed_alone(write, failure)
        return [], None

    async def _outwait(self, batch: list[Write], error: BaseException) -> BaseException | None:
        """Retry until a transaction can begin, or patience ends; the error of that transaction, or None."""
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience
        failure: BaseException | None = error
        while isinstance(failure, DatabaseAway):
            if self._loop.time() >= given_up_at:
                tell(batch, [Result(None, failure)] * len(batch))
                return None
            logger.warning("The database does not take writes (%s); next try in %.1f s.", failure, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            failure = await self._try(batch, self.lock_wait)
        return failure

    async def _try(self, batch: list[Write], lock_wait: int) -> BaseException | None:
        """Make these writes in one transaction on the ledger's thread; the error, if it fails."""
        try:
            results = await self._in_thread(partial(write_together, batch, lock_wait))
        except Exception as failure:  # noqa: BLE001 - the callers of the ledger get it
            return failure
        tell(batch, results)
        return None

    # Beside the ledger

    def _is_retried(self, error: BaseException) -> bool:
        """Whether a write that failed alone with this error is tried again."""
        return isinstance(error, TRANSIENT)

    def _failed_alone(self, write: Write, error: BaseException) -> None:
        """Retry a write that failed alone, if that may help; only its caller waits for it. Or report its error."""
        if not self._is_retried(error):
            write.tell(Result(None, error))
            return
        retrying = self._loop.create_task(self._write_beside(write, error))
        self._beside.add(retrying)
        retrying.add_done_callback(self._written_beside)

    async def _write_beside(self, write: Write, error: BaseException) -> None:
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience_beside
        while isinstance(error, TRANSIENT) and self._loop.time() < given_up_at:
            logger.warning(
                "The database does not take a write (%s); next try in %.1f s. It is %s; no other waits for it.",
                error,
                pause,
                write,
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            if self._spare is None:
                self._spare = ThreadPoolExecutor(1, thread_name_prefix="taskapi-ledger-beside")
            try:
                results = await self._loop.run_in_executor(self._spare, write_and_close, write)
            except Exception as failure:  # noqa: BLE001 - the caller of the ledger gets it
                error = failure
            else:
                tell([write], results)
                return
        write.tell(Result(None, error))

    def _written_beside(self, retrying: asyncio.Task[None]) -> None:
        self._beside.discard(retrying)
        if not self._beside and self._spare is not None:
            self._spare.shutdown(wait=False)
            self._spare = None


class WorkerLedger(Ledger):
    """A worker's, on a thread of its own. It is patient, because a task's work cannot be undone."""

    lock_wait = LOCK_WAIT
    patience = GIVE_UP

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="taskapi-ledger")

    @property
    def patience_beside(self) -> float:  # type: ignore[override]  # the same as `patience`
        return self.patience

    async def close(self) -> None:
        """Finish the writes that wait, then close the thread and its connections."""
        await super().close()
        await self._loop.run_in_executor(self._thread, connections.close_all)
        self._thread.shutdown()

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        def call() -> T:
            with watching():
                keep_connections()
                try:
                    return function()
                finally:
                    forget_queries()

        return self._loop.run_in_executor(self._thread, call)


class ServerLedger(Ledger):
    """A server's, on the thread of its other database work. Its clients wait for an answer, and can ask again."""

    lock_wait = LOCK_WAIT_ALONE  # all sockets wait as long
    patience = 0.0
    patience_beside = ANSWER_LIMIT

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return self._loop.create_task(in_database(function))

    def _is_retried(self, error: BaseException) -> bool:
        return isinstance(error, TRANSIENT) and is_locked(error)  # any other error is reported at once


def get_ledger() -> ServerLedger:
    """The server's ledger of the running event loop."""
    return one_per_loop(ServerLedger)
