"""How a run is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from taskapi import events
from taskapi.models import TaskInfo
from taskapi.protocol import Report
from taskapi.protocol.states import Execution, Status
from taskapi.runs.ending import end, final_report
from taskapi.runs.moves import as_known, refresh, tries
from taskapi.runs.outcomes import CANCELLED
from taskapi.runs.queueing import on_commit
from taskapi.store import rows

_stops: dict[Execution, Callable[[], object]] = {}  # see `stopped_by`


@contextmanager
def stopped_by(stop: Callable[[], object], info: TaskInfo) -> Iterator[None]:
    """Inside, `stop` is called at once if this process asks the running attempt to stop.

    For an attempt that is executed inside the transaction of its caller: what happens on commit is too late for it.
    """
    execution = (info.uuid, info.attempt)
    _stops[execution] = stop
    try:
        yield
    finally:
        del _stops[execution]


def cancel(info: TaskInfo) -> bool:
    """Ask a run to stop; False if it has ended.

    A run that waits is cancelled here. The worker of a run that is executed is told by a flag in the row, which it
    reads each time that it renews its lease, and by an event, which is sooner.
    """
    # No transaction of its own: each try is one statement, so SQLite need not wait for a lock that it would be refused.
    refresh(info)
    for _ in tries(info):
        if info.is_final:
            return False
        if info.status == Status.PENDING and end(info, CANCELLED, cancel_requested=True):
            on_commit(partial(events.publish_from_thread, info.uuid, final_report(info)))
            return True
        if info.status == Status.RUNNING and rows.change(as_known(info), {"cancel_requested": True}):
            info.cancel_requested = True
            stop = _stops.get((info.uuid, info.attempt))
            if stop is not None:
                stop()
            else:
                on_commit(partial(events.tell_workers, info.uuid, info.attempt))
                on_commit(partial(events.publish_from_thread, info.uuid, _request_report(info)))
            return True
        refresh(info, lock=True)  # it has moved on meanwhile
    return False


def _request_report(info: TaskInfo) -> Report:
    """For who waits for any change of the row: the wire has no event for a request to stop."""
    return Report(info.seq, info.seq, info.message_count, False, ())
