"""Whether a worker takes a queue: asked only about runs that have waited for seconds. And what is said if none does.

A run that no worker takes looks like one that will begin at any moment. So its readers and the log are told.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.conf import settings
from taskapi.protocol.states import Status

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

logger = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=3)  # for which a run may wait without a word: a worker that restarts takes as long
KEPT = 2.0  # seconds for which an answer of the backend counts, for all readers of this process
LOG_INTERVAL = 60.0  # seconds between two lines in the log about one queue
NO_WORKER = "no_worker"


class _Answer(NamedTuple):
    """What the backend has said about a queue, and when."""

    has_worker: bool | None
    asked: float
    logged: float | None  # when the log was last told that the queue has no worker


_answers: dict[tuple[str, str], _Answer] = {}  # by the backend's path and the queue
_lock = threading.Lock()  # one question at a time: the others get its answer


def waits_long(info: TaskInfo) -> bool:
    """Whether the run is pending, and could have begun some seconds ago."""
    if info.status != Status.PENDING.value:
        return False
    return max(info.created, info.run_at or info.created) < timezone.now() - PATIENCE


def hint_for(info: TaskInfo) -> dict[str, str] | None:
    """The `hint` of the run's representation; None if nothing has to be said. It may ask the backend, and wait."""
    if not waits_long(info) or has_worker(info.queue) is not False:
        return None
    return {"code": NO_WORKER, "message": sentence(info.queue)}


def sentence(queue: str) -> str:
    """What is wrong if no worker takes the queue, and what to do."""
    return f"No worker takes the queue {queue!r}. Start one: {command(queue)}"


def command(queue: str) -> str:
    return f"python manage.py taskworker --queue {queue}"


def has_worker(queue: str) -> bool | None:
    """Whether a worker takes the queue; None if that is not known. A queue without one is logged, once a minute."""
    key = (settings.backend, queue)
    with _lock:
        now = time.monotonic()
        last = _answers.get(key)
        if last is not None and now < last.asked + KEPT:
            return last.has_worker
        answer = _ask(queue)
        logged = last and last.logged
        if answer is False and (logged is None or now >= logged + LOG_INTERVAL):
            logged = now
            logger.warning(
                "No worker takes the queue %r, and runs wait in it. They begin when a worker does: %s",
                queue,
                command(queue),
            )
        _answers[key] = _Answer(answer, time.monotonic(), logged)
    return answer


def _ask(queue: str) -> bool | None:
    try:
        return get_backend().has_worker(queue)
    except Exception as error:  # noqa: BLE001 - each backend has its own errors, and none may keep a run from its reader
        logger.debug("Whether a worker takes the queue %r is not known: %r", queue, error)
        return None
