"""How a committed run reaches its queue, and by whose clock it waits there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache

from django.db import router, transaction
from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.models import TaskInfo
from taskapi.store import rows

logger = logging.getLogger(__name__)

QUEUED_TOGETHER = 1_000  # runs that are queued in one call: a script in Redis holds up all its clients
EARLY = timedelta(seconds=1)  # by which the clocks of hosts, of the database and of Redis may differ


def on_commit(function: Callable[[], object]) -> None:
    """Call `function` when the row is committed, and not at all after a rollback."""
    transaction.on_commit(function, using=router.db_for_write(TaskInfo))


def enqueue(info: TaskInfo) -> None:
    """Queue a committed run. If the queue is away, the run waits in its row, and a sweep queues it later."""
    _enqueue(info, skew)


def enqueue_all(infos: Sequence[TaskInfo]) -> None:
    """As `enqueue`, for many runs, in their order; a backend that can takes them in few calls."""
    ahead = cache(skew)  # each asks the database
    for first in range(0, len(infos), QUEUED_TOGETHER):
        with get_backend().together():
            for info in infos[first : first + QUEUED_TOGETHER]:
                _enqueue(info, ahead)


def _enqueue(info: TaskInfo, ahead: Callable[[], timedelta]) -> None:
    try:
        run_at = None if info.run_at is None else info.run_at - ahead()  # a queue waits by the clock of its host
        get_backend().enqueue(info.uuid, queue=info.queue, run_at=run_at)
    except Exception as error:  # noqa: BLE001 - each backend has its own errors, and none may undo what is committed
        logger.warning(
            "Run %s is recorded but could not be queued yet: %r. A worker's sweep will queue it.", info.uuid, error
        )


def later(by: timedelta) -> datetime:
    """The moment so long after now, by the database's clock: that clock decides when a run may begin."""
    return timezone.now() + skew() + by


def skew() -> timedelta:
    """By how much the database's clock is ahead of this host's; zero if they differ as little as clocks always do."""
    ahead = rows.now() - timezone.now()
    return ahead if abs(ahead) > EARLY else timedelta(0)
