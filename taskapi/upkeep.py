"""What keeps runs going without anybody asking: leases, the sweep, and the deletion of what has expired.

All of it is safe with many workers doing it at once, and lost work is found by the row alone: Redis may have
been emptied. Times are compared on the database's clock, so that the clocks of hosts do not matter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connections, router
from django.db.models import Q, QuerySet

from taskapi.backends import get_backend
from taskapi.database import watching, workers_transaction
from taskapi.models import TaskInfo, TaskMessage
from taskapi.rows import CLOCK, NOW
from taskapi.runs import LEASE, Outcome, end, enqueue
from taskapi.states import FINAL, Status

logger = logging.getLogger(__name__)

SWEEP_AGE = timedelta(seconds=5)  # a pending run this old should have a job
SWEEP_ROWS = 1000  # looked at in one sweep
RENEW_TRIES, RENEW_PAUSE = 5, 0.1  # seconds; a row that is locked for longer is renewed with the next
PRUNE_ROWS = 500  # deleted in one transaction
PRUNE_PAGES = 10  # of so many, at most, in one sweep
PRUNE_LIMIT = 60.0  # seconds without an answer: they may have a million messages


class Held(NamedTuple):
    """The runs that a worker holds, and those among them that somebody asked to stop."""

    runs: set[UUID]
    cancelled: set[UUID]


@watching()
def renew(worker: str, executing: Iterable[UUID]) -> Held:
    """Renew the leases of the runs that the worker executes."""
    mine = TaskInfo.rows().filter(uuid__in=executing, status=Status.RUNNING.value, worker=worker).order_by()
    if connections[mine.db].features.has_select_for_update_skip_locked:
        _renew_around_locks(mine)
    else:  # SQLite locks no rows, and refuses a transaction that reads before it writes where somebody else has written
        mine.update(renewed=NOW)
    rows = list(mine.values_list("uuid", "cancel_requested"))
    return Held({uuid for uuid, _ in rows}, {uuid for uuid, cancelled in rows if cancelled})


def _renew_around_locks(mine: QuerySet[TaskInfo]) -> None:
    """Renew rows, and those that are locked when they are free.

    The ledger locks the rows that it writes in an order of its own: who waited for one of them and held another would
    be a deadlock.
    """
    renewed: set[int] = set()
    for _ in range(RENEW_TRIES):
        with workers_transaction(mine.db):
            free = list(_lock(mine.exclude(pk__in=renewed)).values_list("pk", flat=True))
            TaskInfo.rows().filter(pk__in=free).update(renewed=NOW)
        renewed.update(free)
        if not mine.exclude(pk__in=renewed).exists():
            return
        time.sleep(RENEW_PAUSE)


@watching()
def take_back() -> list[TaskInfo]:
    """Free the runs whose worker has not renewed its lease; they wait for another, or have had their last attempt."""
    expired = Q(renewed__lt=NOW - LEASE, status=Status.RUNNING.value)
    taken = []
    for pk in list(TaskInfo.rows().filter(expired).order_by("id").values_list("pk", flat=True)[:SWEEP_ROWS]):
        with workers_transaction(router.db_for_write(TaskInfo)):
            # A worker that froze inside a transaction has its rows locked: that must not keep the others waiting.
            info = _lock(TaskInfo.rows().filter(expired, pk=pk)).first()
            if info is None:
                continue
            # Where rows cannot be locked, it may have been renewed meanwhile: so it is disowned first.
            disowned = TaskInfo.rows().filter(expired, pk=pk).update(worker="")
            if disowned and end(info, Outcome(Status.PENDING)):
                logger.warning("Run %s lost its worker in attempt %d; it is %s.", info.uuid, info.attempt, info.status)
                taken.append(info)
    return taken


def _lock(rows: QuerySet[TaskInfo]) -> QuerySet[TaskInfo]:
    can_skip = connections[rows.db].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=True) if can_skip else rows


@watching()
def requeue(queues: Iterable[str], after: int = 0) -> int:
    """Queue pending runs again that have no job: Redis was away when they were committed, or has lost them.

    Looks at a page of rows past the id `after`, and returns where the next page begins.
    """
    backend = get_backend()
    pending = TaskInfo.rows().filter(status=Status.PENDING.value, id__gt=after)
    rows = list(pending.filter(created__lt=CLOCK - SWEEP_AGE).order_by("id")[:SWEEP_ROWS])
    for queue in queues:
        mine = {info.uuid: info for info in rows if info.queue == queue}
        for uuid in backend.missing(queue, mine):
            logger.info("Run %s had no job; queueing it again.", uuid)
            enqueue(mine[uuid])
    return rows[-1].pk if len(rows) == SWEEP_ROWS else 0


@watching(PRUNE_LIMIT)
def prune() -> int:
    """Delete some finished runs that have expired, with their messages; how many, 0 where none is left."""
    unfinished = [status.value for status in Status if status not in FINAL]
    # Not "those that have ended": SQLite would look through all of them.
    expired = TaskInfo.rows().filter(expires__lt=CLOCK).exclude(status__in=unfinished)
    found = list(expired.order_by("expires").values_list("pk", flat=True)[:PRUNE_ROWS])
    with workers_transaction(router.db_for_write(TaskInfo)):
        # What somebody has locked, a project's long transaction say, is deleted another time.
        ids = list(_lock(TaskInfo.rows().filter(pk__in=found).order_by()).values_list("pk", flat=True))
        TaskMessage.objects.filter(run__in=ids).delete()
        TaskInfo.rows().filter(pk__in=ids).delete()
    return len(ids)


def prune_pages() -> int:
    """`prune`, page by page: at most PRUNE_PAGES of them, each with a pause as long as it took, for others' writes."""
    deleted = 0
    for _ in range(PRUNE_PAGES):
        begun = time.monotonic()
        count = prune()
        deleted += count
        if count < PRUNE_ROWS:
            break
        time.sleep(time.monotonic() - begun)
    return deleted
