"""One write of a run's row: what a caller asks of the ledger, and the transaction in which it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db import connections, router

from taskapi.backends import get_backend
from taskapi.models import TaskInfo
from taskapi.store.database import LOCK_WAIT, TRANSIENT, DatabaseAway, workers_transaction
from taskapi.store.silence import watching

LOCKED = ("55P03", "40P01", "40001", 1205, 1213)  # PostgreSQL's and MySQL's codes: a lock, a deadlock, a conflict


class Result(NamedTuple):
    """What a write returned, or the error that it raised."""

    value: Any
    error: BaseException | None


class Write:
    """One caller's write. It is prepared once, though it may be written several times."""

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], Any] | None, done: asyncio.Future[Any]):
        self.done = done
        self._function = function
        self._prepare = prepare
        self._prepared: Result | None = None

    def __str__(self) -> str:
        of = (*getattr(self._function, "args", ()), "that is new")[0]  # the first argument of each write is its run
        return f"{getattr(self._function, 'func', self._function).__name__}() of run {getattr(of, 'uuid', of)}"

    def prepare(self) -> None:
        if self._prepare is None or self._prepared is not None:
            return
        try:
            self._prepared = Result(self._prepare(), None)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 - the caller of the ledger gets it
            self._prepared = Result(None, error)

    def write(self) -> Result:
        if self._prepared is None:
            return Result(self._function(), None)
        if self._prepared.error is not None:
            return self._prepared
        return Result(self._function(self._prepared.value), None)

    def tell(self, result: Result) -> None:
        """Give the caller the result."""
        if self.done.done():
            return  # the caller was cancelled; the write holds all the same
        if result.error is None:
            self.done.set_result(result.value)
        elif isinstance(result.error, StopIteration):  # which a future does not take
            self.done.set_exception(RuntimeError(f"It raised {result.error!r}."))
        else:
            self.done.set_exception(result.error)


def tell(batch: Sequence[Write], results: Sequence[Result]) -> None:
    """Give the callers of these writes their results."""
    for write, result in zip(batch, results, strict=True):
        write.tell(result)


def write_together(batch: Sequence[Write], lock_wait: int) -> list[Result]:
    """Make these writes in one transaction of this thread; the results in their order, if it was committed."""
    for write in batch:
        write.prepare()
    using = router.db_for_write(TaskInfo)
    try:
        with get_backend().together(), workers_transaction(using, lock_wait):
            return [write.write() for write in batch]
    except TRANSIENT as error:
        if len(batch) == 1 and not isinstance(error, DatabaseAway) and not is_locked(error):
            connections[using].close()  # the server behind it may have become one that takes no writes
        raise


def write_and_close(write: Write) -> list[Result]:
    """Make a write on a new connection, and close that: on another connection it has failed, for whatever reason."""
    try:
        with watching():
            return write_together([write], LOCK_WAIT)
    finally:
        connections.close_all()


def is_locked(error: Exception) -> bool:
    """Whether the database is well, and another transaction has locked what was to be written."""
    code = getattr(error.__cause__, "sqlstate", getattr(error.__cause__, "pgcode", None))  # psycopg 3, or 2
    return code in LOCKED or error.args[:1] in [(number,) for number in LOCKED]
