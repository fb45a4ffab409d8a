"""How runs' rows are written: many writes in one transaction where many wait.

A transaction costs about the same for one write as for twenty (on SQLite and on PostgreSQL alike the commit
is what takes long), so the writes that arrive while one is under way share the next. A worker has a thread for
it, which runs nothing else: status and progress never queue behind a task's own code or queries.

Nobody waits for a neighbour. A transaction waits for a lock for a moment only; if it fails, each of its writes is
made in one of its own; and one that fails there, too, because somebody else has locked its row, say, is tried on beside
the ledger, on a thread of its own. Only while no transaction can begin at all, everybody waits.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from django.db import InterfaceError, connections, router

from taskapi.backends import get_backend
from taskapi.models import TaskInfo
from taskapi.store.database import (
    AWAY,
    LOCK_WAIT,
    DatabaseAway,
    forget_queries,
    in_database,
    keep_connections,
    watching,
    workers_transaction,
)
from taskapi.store.loops import of_loop

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WRITES = 100  # in one transaction: bounds how long it holds SQLite's one write lock
LOCK_WAIT_ALONE = 50  # milliseconds for each of those whose transaction has failed: they wait for one another
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between two tries while the database is away; doubling
GIVE_UP = 600.0  # seconds after which a write that never succeeds is taken for the fault
LOCKED = ("55P03", "40P01", "40001", 1205, 1213)  # PostgreSQL's and MySQL's codes: a lock, a deadlock, a conflict
ANSWER_LIMIT = 5.0  # seconds for which a server tries on what somebody else has locked


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

    def __str__(self) -> str:
        of = (*getattr(self._function, "args", ()), "that is new")[0]  # whatever is written has the run first
        return f"{getattr(self._function, 'func', self._function).__name__}() of run {getattr(of, 'uuid', of)}"

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

    lock_wait: int  # milliseconds for which a transaction waits for a lock
    patience: float  # seconds for which writes are tried again while the database is away
    patience_beside: float  # seconds for which a write is that fails by itself

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Write] = []
        self._writing: asyncio.Future[Any] | None = None
        self._beside: set[asyncio.Task[None]] = set()  # writes that are tried by themselves
        self._spare: ThreadPoolExecutor | None = None  # their thread, while there are any

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
        while self._writing is not None or self._beside:
            await asyncio.wait({self._writing} if self._writing is not None else self._beside)

    @abstractmethod
    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]: ...

    def _write_next(self) -> None:
        """Hand what waits to the thread, now: a run begins with a write, and the loop may have much else to do."""
        batch, self._waiting = self._waiting[:MOST_WRITES], self._waiting[MOST_WRITES:]
        if batch:
            self._writing = self._in_thread(partial(_write, batch, self.lock_wait))
            self._writing.add_done_callback(partial(self._written, batch))
        else:
            self._writing = None

    def _written(self, batch: list[_Write], writing: asyncio.Future[list[_Outcome]]) -> None:
        if writing.cancelled():
            outcomes = [_Outcome(None, InterfaceError("The writing was cancelled."))] * len(batch)
        elif (error := writing.exception()) is not None:
            self._writing = self._loop.create_task(self._write_after_all(batch, error))
            self._writing.add_done_callback(lambda writing: self._write_next())
            return
        else:
            outcomes = writing.result()
        _tell(batch, outcomes)
        self._write_next()

    async def _write_after_all(self, batch: list[_Write], error: BaseException) -> None:
        """See to writes whose transaction has failed: each is written, or fails, or is tried on beside the ledger."""
        failure: BaseException | None = error
        while failure is not None:
            if isinstance(failure, DatabaseAway):
                failure = await self._outwait(batch, failure)
            elif len(batch) == 1:
                self._refused(batch[0], failure)
                return
            else:
                batch, failure = await self._write_each(batch)

    async def _write_each(self, batch: list[_Write]) -> tuple[list[_Write], BaseException | None]:
        """Write each in a transaction of its own; what is left, and why, if none can begin any more."""
        for n, write in enumerate(batch):
            failure = await self._try([write], LOCK_WAIT_ALONE)
            if isinstance(failure, DatabaseAway):
                return batch[n:], failure
            if failure is not None:
                self._refused(write, failure)
        return [], None

    async def _outwait(self, batch: list[_Write], error: BaseException) -> BaseException | None:
        """Try until a transaction can begin, or for as long as the ledger is patient; None if nothing is left to do."""
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience
        failure: BaseException | None = error
        while isinstance(failure, DatabaseAway):
            if self._loop.time() >= given_up_at:
                _tell(batch, [_Outcome(None, failure)] * len(batch))
                return None
            logger.warning("The database does not take writes (%s); next try in %.1f s.", failure, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            failure = await self._try(batch, self.lock_wait)
        return failure

    async def _try(self, batch: list[_Write], lock_wait: int) -> BaseException | None:
        """Write these in one transaction on the ledger's thread; the error, if there is one."""
        try:
            outcomes = await self._in_thread(partial(_write, batch, lock_wait))
        except Exception as failure:  # noqa: BLE001 - it goes to whoever wrote
            return failure
        _tell(batch, outcomes)
        return None

    # Beside the ledger

    def _may_succeed(self, error: BaseException) -> bool:
        """Whether a write that has failed by itself is tried on."""
        return isinstance(error, AWAY)

    def _refused(self, write: _Write, error: BaseException) -> None:
        """A write has failed by itself: it is tried on if it may succeed, and nobody waits for that but its caller."""
        if not self._may_succeed(error):
            write.tell(_Outcome(None, error))
            return
        trying = self._loop.create_task(self._write_beside(write, error))
        self._beside.add(trying)
        trying.add_done_callback(self._written_beside)

    async def _write_beside(self, write: _Write, error: BaseException) -> None:
        pause = FIRST_PAUSE
        given_up_at = self._loop.time() + self.patience_beside
        while isinstance(error, AWAY) and self._loop.time() < given_up_at:
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
                outcomes = await self._loop.run_in_executor(self._spare, _write_and_close, write)
            except Exception as failure:  # noqa: BLE001 - it goes to whoever wrote
                error = failure
            else:
                _tell([write], outcomes)
                return
        write.tell(_Outcome(None, error))

    def _written_beside(self, trying: asyncio.Task[None]) -> None:
        self._beside.discard(trying)
        if not self._beside and self._spare is not None:
            self._spare.shutdown(wait=False)
            self._spare = None


class WorkerLedger(Ledger):
    """A worker's: on a thread of its own, and patient, because what a task has done is done."""

    lock_wait = LOCK_WAIT
    patience = GIVE_UP

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="taskapi-ledger")

    @property
    def patience_beside(self) -> float:  # type: ignore[override]  # as patient
        return self.patience

    async def close(self) -> None:
        """Finish what waits, then close the thread and its connections."""
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
    """A server's: on the thread of its other rows. Somebody waits for an answer, and can ask again."""

    lock_wait = LOCK_WAIT_ALONE  # all sockets wait as long
    patience = 0.0
    patience_beside = ANSWER_LIMIT

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return self._loop.create_task(in_database(function))

    def _may_succeed(self, error: BaseException) -> bool:
        return isinstance(error, AWAY) and _is_locked(error)  # all else is told at once


def get_ledger() -> ServerLedger:
    """The server's ledger of the running event loop."""
    return of_loop(ServerLedger)


def _tell(batch: list[_Write], outcomes: list[_Outcome]) -> None:
    for write, outcome in zip(batch, outcomes, strict=True):
        write.tell(outcome)


def _write(batch: list[_Write], lock_wait: int) -> list[_Outcome]:
    for write in batch:
        write.prepare()
    using = router.db_for_write(TaskInfo)
    try:
        with get_backend().together(), workers_transaction(using, lock_wait):
            return [write.write() for write in batch]
    except AWAY as error:
        if len(batch) == 1 and not isinstance(error, DatabaseAway) and not _is_locked(error):
            connections[using].close()  # the server behind it may have become one that takes no writes
        raise


def _is_locked(error: Exception) -> bool:
    """Whether the database is well, and somebody else has locked what was to be written."""
    code = getattr(error.__cause__, "sqlstate", getattr(error.__cause__, "pgcode", None))  # psycopg 3, or 2
    return code in LOCKED or error.args[:1] in [(number,) for number in LOCKED]


def _write_and_close(write: _Write) -> list[_Outcome]:
    """Write it on a connection that is new, and is left to nobody: it failed on another, whatever the reason was."""
    try:
        with watching():
            return _write([write], LOCK_WAIT)
    finally:
        connections.close_all()
