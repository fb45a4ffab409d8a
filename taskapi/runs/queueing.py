"""How a committed run reaches its queue, and by whose clock it waits there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import router, transaction
from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.models import TaskInfo
from taskapi.store import rows

logger = logging.getLogger(__name__)

EARLY = timedelta(seconds=1)  # by which the clocks of hosts, of the database and of Redis may differ


def on_commit(function: Callable[[], object]) -> None:
    """Call `function` when the row is committed, and not at all after a rollback."""
    transaction.on_commit(function, using=router.db_for_write(TaskInfo))


def enqueue(info: TaskInfo) -> None:
    """Queue a committed run. If the queue is away, the run waits in its row, and a sweep queues it later."""
    try:
        run_at = None if info.run_at is None else info.run_at - skew()  # a queue waits by the clock of its host
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
