"""What keeps runs going without anybody asking: leases, the sweep, and the deletion of what has expired.

All of it is safe with many workers doing it at once, and lost work is found by the row alone: Redis may have
been emptied. Times are compared on the database's clock, so that the clocks of hosts do not matter.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from django.db import connections, router
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.database import workers_transaction
from taskapi.models import TaskInfo, TaskMessage
from taskapi.runs import LEASE, Outcome, end, enqueue
from taskapi.states import FINAL, Execution, Status

logger = logging.getLogger(__name__)

SWEEP_AGE = timedelta(seconds=5)  # a pending run this old should have a job
SWEEP_ROWS = 5000  # looked at in one sweep
SWEEP_AHEAD = timedelta(hours=1)  # a run that is not due for longer is looked at later
RENEW_TRIES, RENEW_PAUSE = 5, 0.1  # seconds; a row that is locked for longer is renewed with the next
PRUNE_ROWS = 500  # deleted in one transaction
PRUNE_PAGES = 10  # of so many, at most, in one sweep


class Held(NamedTuple):
    """The attempts that a worker holds, and those among them that somebody asked to stop."""

    executions: set[Execution]
    cancelled: set[Execution]


def renew(worker: str, executing: Iterable[Execution]) -> Held:
    """Renew the leases of the attempts that the worker executes."""
    mine = TaskInfo.rows().filter(_any_of(executing), status=Status.RUNNING.value, worker=worker).order_by()
    if connections[mine.db].features.has_select_for_update_skip_locked:
        _renew_around_locks(mine)
    else:  # SQLite locks no rows, and refuses a transaction that reads before it writes where somebody else has written
        mine.update(renewed=Now())
    rows = [((uuid, n), cancelled) for uuid, n, cancelled in mine.values_list("uuid", "attempt", "cancel_requested")]
    return Held({execution for execution, _ in rows}, {execution for execution, cancelled in rows if cancelled})


def _any_of(executing: Iterable[Execution]) -> Q:
    """The rows of these attempts: not those of another attempt of the same run."""
    by_attempt = defaultdict(list)
    for uuid, attempt in executing:
        by_attempt[attempt].append(uuid)
    found = Q(pk__in=[])
    for attempt, uuids in by_attempt.items():
        found |= Q(uuid__in=uuids, attempt=attempt)
    return found


def _renew_around_locks(mine: QuerySet[TaskInfo]) -> None:
    """Renew rows, and those that are locked when they are free.

    The ledger locks the rows that it writes in an order of its own: who waited for one of them and held another would
    be a deadlock.
    """
    renewed: set[int] = set()
    for _ in range(RENEW_TRIES):
        with workers_transaction(mine.db):
            free = list(_lock(mine.exclude(pk__in=renewed)).values_list("pk", flat=True))
            TaskInfo.rows().filter(pk__in=free).update(renewed=Now())
        renewed.update(free)
        if not mine.exclude(pk__in=renewed).exists():
            return
        time.sleep(RENEW_PAUSE)


def take_back() -> list[TaskInfo]:
    """Free the runs whose worker has not renewed its lease; they wait for another, or have had their last attempt."""
    expired = Q(renewed__lt=Now() - LEASE, status=Status.RUNNING.value)
    taken = []
    for pk in list(TaskInfo.rows().filter(expired).order_by("id").values_list("pk", flat=True)[:SWEEP_ROWS]):
        with workers_transaction(router.db_for_write(TaskInfo)):
            # A worker that froze inside a transaction has its rows locked: that must not keep the others waiting.
            info = _lock(TaskInfo.rows().filter(expired, pk=pk)).first()
            # Where rows cannot be locked, it may have been renewed meanwhile: so it is disowned first.
            disowned = TaskInfo.rows().filter(expired, pk=pk).update(worker="")
            if info is not None and disowned and end(info, Outcome(Status.PENDING)):
                logger.warning("Run %s lost its worker in attempt %d; it is %s.", info.uuid, info.attempt, info.status)
                taken.append(info)
    return taken


def _lock(rows: QuerySet[TaskInfo]) -> QuerySet[TaskInfo]:
    can_skip = connections[rows.db].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=True) if can_skip else rows


def requeue(queues: Iterable[str], after: int = 0) -> int:
    """Queue pending runs again that have no job: Redis was away when they were committed, or has lost them.

    Looks at a page of rows past the id `after`, and returns where the next page begins.
    """
    backend = get_backend()
    now = timezone.now()
    pending = TaskInfo.rows().filter(status=Status.PENDING.value, id__gt=after, queue__in=queues)
    soon = pending.filter(created__lt=now - SWEEP_AGE).exclude(run_at__gt=now + SWEEP_AHEAD)
    # Not the rows: their inputs may be large, and what is read here is read again in a few seconds.
    page = list(soon.order_by("id").values_list("id", "uuid", "queue", "run_at")[:SWEEP_ROWS])
    by_queue = defaultdict(list)
    for _, uuid, queue, run_at in page:
        by_queue[queue].append((uuid, run_at))
    with backend.together():
        for queue, waiting in by_queue.items():
            due = dict(waiting)
            for uuid in backend.missing(queue, due):
                logger.info("Run %s had no job; queueing it again.", uuid)
                enqueue(TaskInfo(uuid=uuid, queue=queue, run_at=due[uuid]))
    return page[-1][0] if len(page) == SWEEP_ROWS else 0


def prune() -> int:
    """Delete some finished runs that have expired, with their messages; how many, 0 where none is left."""
    unfinished = [status.value for status in Status if status not in FINAL]
    # Not "those that have ended": SQLite would look through all of them.
    expired = TaskInfo.rows().filter(expires__lt=timezone.now()).exclude(status__in=unfinished)
    ids = list(expired.order_by("expires").values_list("pk", flat=True)[:PRUNE_ROWS])
    with workers_transaction(router.db_for_write(TaskInfo)):
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
