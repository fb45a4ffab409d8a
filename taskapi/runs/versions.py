"""Runs that this worker cannot execute: they are left to workers of another version, for longer than a deploy takes."""

from __future__ import annotations

import logging
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models import DateTimeField, Value
from django.db.models.lookups import LessThan

from taskapi.backends import get_backend
from taskapi.models import TaskInfo
from taskapi.protocol.states import Status
from taskapi.runs.moves import as_known, move
from taskapi.runs.outcomes import Outcome
from taskapi.runs.queueing import enqueue, later, on_commit
from taskapi.store import rows

logger = logging.getLogger(__name__)

UNKNOWN_PAUSE = timedelta(seconds=10)  # before a run that a worker could not execute is offered to all workers again
UNKNOWN_LIMIT = timedelta(minutes=10)  # for which no worker could execute it: longer than a deploy takes


def leave(info: TaskInfo, refusal: Outcome) -> None:
    """Leave a pending run to others; `renewed` says since when no worker has taken it."""
    if info.renewed is None:
        _log(info, refusal)
        rows.change(as_known(info), {"renewed": rows.NOW})
    on_commit(partial(_offer, info))


def hand_on(info: TaskInfo, refusal: Outcome, **said: Any) -> bool:
    """Leave a running run to others: its inputs turned out not to fit the task of this version.

    The task was not called, so the attempt does not count.
    """
    _log(info, refusal)
    since = rows.NOW if info.left_since is None else info.left_since
    if not move(info, Status.PENDING, worker="", **said, renewed=since, handed_back=info.handed_back + 1):
        return False
    on_commit(partial(_offer, copy(info)))
    return True


def is_left_for_good(since: datetime | None, info: TaskInfo) -> bool:
    """Whether workers have left the run for longer than UNKNOWN_LIMIT; `since` is by the clock of leases."""
    if since is None:
        return False
    left_long_ago = LessThan(Value(since, DateTimeField()), rows.NOW - UNKNOWN_LIMIT)
    return TaskInfo.rows().filter(left_long_ago, pk=info.pk).exists()


def _offer(info: TaskInfo) -> None:
    """Offer the run to workers of other versions at once, and to all workers after UNKNOWN_PAUSE."""
    with suppress(Exception):  # the queue is away: `enqueue` logs it
        get_backend().set_aside(info.uuid, queue=info.queue)
    info.run_at = later(UNKNOWN_PAUSE)  # of the job, not of the row
    enqueue(info)


def _log(info: TaskInfo, refusal: Outcome) -> None:
    logger.info("Run %s is left to workers of another version: %s", info.uuid, refusal.message)
