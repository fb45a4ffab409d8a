"""What keeps runs going by itself: leases, sweeps, and the deletion of expired runs.

Many workers may do all of it at once. Lost runs are found by their rows alone, so that the queue may lose everything.
Times are compared by the database's clock, so that the clocks of machines do not matter.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connections, router
from django.db.models import Q, QuerySet

from taskapi.backends import get_backend
from taskapi.events import publish_from_thread
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol.states import FINAL, Execution, Status
from taskapi.runs import EARLY, LEASE, WORKER_LOST, end, enqueue, final_report
from taskapi.store.database import workers_transaction
from taskapi.store.rows import CLOCK, NOW
from taskapi.store.silence import watching

logger = logging.getLogger(__name__)

SWEEP_AGE = timedelta(seconds=5)  # a pending run this old should have a job
SWEEP_ROWS = 5000  # looked at in one sweep
SWEEP_AHEAD = timedelta(hours=1)  # a run that is due later than this is looked at later
RENEW_TRIES, RENEW_PAUSE = 5, 0.1  # seconds; a row that is locked for longer waits for the next renewal
PRUNE_ROWS = 500  # deleted in one transaction
PRUNE_PAGES = 10  # of so many rows, at most, in one sweep
REFUSED_FOR = 3600.0  # seconds until a run that cannot be deleted is tried again, and until the log names another
RELEASE_TRIES, RELEASE_PAUSE = 3, 0.3  # seconds between two looks at the runs of a worker that has just died
PRUNE_LIMIT = 60.0  # seconds without an answer: the runs may have a million messages


class Renewal(NamedTuple):
    """What a renewal of leases found."""

    held: set[Execution]  # attempts whose lease was renewed
    cancelled: set[Execution]  # those among them that somebody asked to stop


@watching()
def renew(worker: str, executing: Iterable[Execution]) -> Renewal:
    """Renew the leases of the attempts that the worker executes."""
    mine = TaskInfo.rows().filter(_any_of(executing), status=Status.RUNNING.value, worker=worker).order_by()
    if connections[mine.db].features.has_select_for_update_skip_locked:
        _renew_around_locks(mine)
    else:  # SQLite locks no rows, and refuses a transaction that reads before it writes if another has written
        mine.update(renewed=NOW)
    rows = [((uuid, n), cancelled) for uuid, n, cancelled in mine.values_list("uuid", "attempt", "cancel_requested")]
    return Renewal({execution for execution, _ in rows}, {execution for execution, cancelled in rows if cancelled})


def _any_of(executing: Iterable[Execution]) -> Q:
    """The rows of these attempts; a row that is at another attempt of its run is not among them."""
    by_attempt = defaultdict(list)
    for uuid, attempt in executing:
        by_attempt[attempt].append(uuid)
    found = Q(pk__in=[])
    for attempt, uuids in by_attempt.items():
        found |= Q(uuid__in=uuids, attempt=attempt)
    return found


def _renew_around_locks(mine: QuerySet[TaskInfo]) -> None:
    """Renew rows, and locked rows once they are free.

    The ledger locks the rows that it writes in an order of its own: a transaction that held one of them and waited for
    another would be a deadlock.
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
def take_back(worker: str | None = None) -> list[TaskInfo]:
    """Free the runs whose lease has run out: each is pending again, or fails if it has had its last attempt.

    With `worker`, free the runs of that worker, which is known to be dead, before their leases run out.
    """
    lost = Q(renewed__lt=NOW - LEASE) if worker is None else Q(worker=worker)
    expired = lost & Q(status=Status.RUNNING.value)
    taken = []
    for pk in list(TaskInfo.rows().filter(expired).order_by("id").values_list("pk", flat=True)[:SWEEP_ROWS]):
        try:
            info = _take_back(expired, pk)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("The lost run with the id %d could not be taken back; the next sweep tries again.", pk)
            continue  # whatever is wrong with this row, other rows wait behind it
        if info is not None:
            logger.warning("Run %s lost its worker in attempt %d; it is %s.", info.uuid, info.attempt, info.status)
            taken.append(info)
    return taken


def _take_back(expired: Q, pk: int) -> TaskInfo | None:
    with workers_transaction(router.db_for_write(TaskInfo)):
        # A worker that froze inside a transaction keeps its rows locked: other rows must not wait for these.
        info = _lock(TaskInfo.rows().filter(expired, pk=pk)).first()
        if info is None:
            return None
        # If the database cannot lock rows, the lease may have been renewed meanwhile: so the row is disowned first.
        disowned = TaskInfo.rows().filter(expired, pk=pk).update(worker="")
        return info if disowned and end(info, WORKER_LOST) else None


def release(worker: str) -> None:
    """Free the runs of a worker that is known to be dead, and tell their followers.

    It looks several times: the database may still execute the last statement of the worker.
    """
    for _ in range(RELEASE_TRIES):
        for info in take_back(worker):
            publish_from_thread(info.uuid, final_report(info))
        time.sleep(RELEASE_PAUSE)


def _lock(rows: QuerySet[TaskInfo]) -> QuerySet[TaskInfo]:
    can_skip = connections[rows.db].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=True) if can_skip else rows


@watching()
def requeue(queues: Iterable[str], after: int = 0, age: timedelta | None = None) -> int:
    """Queue pending runs again that have no job: the queue was away when they were committed, or has lost the jobs.

    Looks at a page of rows past the id `after` that are as old as `age` (SWEEP_AGE), and returns the id after which the
    next page begins; 0 after the last.
    """
    backend = get_backend()
    pending = TaskInfo.rows().filter(status=Status.PENDING.value, id__gt=after, queue__in=queues)
    # A run that was created in the future comes from a server whose clock is ahead: its age is unknown.
    young = Q(created__range=(CLOCK - (SWEEP_AGE if age is None else age), CLOCK + EARLY))
    soon = pending.exclude(young).exclude(run_at__gt=CLOCK + SWEEP_AHEAD)
    # Not whole rows: their inputs may be large, and this is read every few seconds.
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


class Pruner:
    """Deletes finished runs that have expired, with their messages, a page at a time, the oldest first.

    A run that cannot be deleted is left out: a row of the project protects it, say, or a signal handler raises. The
    next pages are deleted all the same, and the run is tried again after REFUSED_FOR.
    """

    def __init__(self) -> None:
        self.deleted = 0
        self.left: dict[int, float] = {}  # by the id of a run that cannot be deleted: when it is tried again
        self._last: Any = None  # of the last run of the page before: when it expired, and its id
        self._silent_until = 0.0

    @watching(PRUNE_LIMIT)
    def page(self) -> bool:
        """Delete what can be deleted of the next page; False if it was the last one, and the next is the first."""
        unfinished = [status.value for status in Status if status not in FINAL]
        # Not `status__in=FINAL`: SQLite would look through all finished runs.
        expired = TaskInfo.rows().filter(expires__lt=CLOCK).exclude(status__in=unfinished)
        if self._last is not None:
            moment, pk = self._last
            expired = expired.filter(Q(expires__gt=moment) | Q(pk__gt=pk), expires__gte=moment)
        page = list(expired.order_by("expires", "id").values_list("expires", "pk")[:PRUNE_ROWS])
        # Before anything can fail: the next page is the one behind this, whatever happens to this one.
        self._last = page[-1] if len(page) == PRUNE_ROWS else None
        now = time.monotonic()
        self.left = {pk: again for pk, again in self.left.items() if again > now}
        self._delete([pk for _, pk in page if pk not in self.left])
        return self._last is not None

    def _delete(self, ids: list[int]) -> None:
        """Delete these runs. If that fails, try each half, until the run that cannot be deleted is alone."""
        if not ids:
            return
        try:
            self.deleted += _delete(ids)
        except Exception as error:
            if _is_away(error):
                raise
            if len(ids) == 1:
                self._leave(ids[0], error)
                return
            half = len(ids) // 2
            self._delete(ids[:half])
            self._delete(ids[half:])

    def _leave(self, pk: int, error: Exception) -> None:
        now = time.monotonic()
        self.left[pk] = now + REFUSED_FOR
        if now >= self._silent_until:
            self._silent_until = now + REFUSED_FOR
            logger.warning(
                "The run with the id %d has expired, but cannot be deleted: %r. Such runs are left out. They are tried "
                "again once an hour, and then one of them is named here.",
                pk,
                error,
            )


def _delete(found: list[int]) -> int:
    """Delete those of these runs that are not locked, or none of them if one fails; how many were deleted."""
    with workers_transaction(router.db_for_write(TaskInfo)):
        # A row that is locked, by a long transaction of the project say, is deleted another time.
        ids = list(_lock(TaskInfo.rows().filter(pk__in=found).order_by()).values_list("pk", flat=True))
        TaskMessage.objects.filter(run__in=ids).delete()
        _, deleted = TaskInfo.rows().filter(pk__in=ids).delete()
    return deleted.get(TaskInfo._meta.label, 0)  # noqa: SLF001 - Django's public name for it


def _is_away(error: Exception) -> bool:
    """Whether the database is away, as opposed to refusing this statement. SQLite's lock counts as away."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    connection = connections[router.db_for_write(TaskInfo)]
    return connection.vendor == "sqlite" or not connection.is_usable()


def prune() -> int:
    """Delete the first page of finished runs that have expired; how many were deleted."""
    pruner = Pruner()
    pruner.page()
    return pruner.deleted


def prune_pages(pruner: Pruner | None = None) -> int:
    """Delete at most PRUNE_PAGES pages; how many runs were deleted. After each page, others get as long to write."""
    pruner = pruner or Pruner()
    before = pruner.deleted
    for _ in range(PRUNE_PAGES):
        begun = time.monotonic()
        if not pruner.page():
            break
        time.sleep(time.monotonic() - begun)
    return pruner.deleted - before
