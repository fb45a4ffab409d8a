"""How jobs lie in Redis: the names of the keys, and the call that a job holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from arq.constants import health_check_key_suffix
from arq.jobs import serialize_job

from taskapi.backends.base import QueueUnavailable
from taskapi.backends.redis import OUTAGE
from taskapi.conf import settings

FUNCTION = "run_task"  # the name of the arq function; its one argument is the run's uuid
QUEUE_INFIX = ":queue:"  # after TASK_API_REDIS_PREFIX; then the name of the queue
DEFERRED_SUFFIX = ":deferred"  # of the sorted set of a queue's jobs that are not due yet
REMEDY = (
    "Start it, or set TASK_API_REDIS_URL. To develop without Redis, set TASK_API_BACKEND to "
    "'taskapi.backends.local.LocalBackend'"
)
STRAY_INFIX = ":stray:"  # after the prefix; then a job's id: how often the job was given back


def queue_key(queue: str) -> str:
    return settings.redis_prefix + QUEUE_INFIX + queue


def health_key(queue: str) -> str:
    """The key at which a worker of the queue records that it is well; ``arq --check`` reads it."""
    return queue_key(queue) + health_check_key_suffix


def serialize(job: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: JSON, so that a client that can write to Redis cannot run code in a worker."""
    return json.dumps(job).encode()


def call(job_id: str, now: float) -> bytes:
    """The call that a job holds, as arq writes it at that moment (seconds of the epoch)."""
    return serialize_job(FUNCTION, (job_id,), {}, None, round(now * 1000), serializer=serialize)


@contextmanager
def raising_unavailable() -> Iterator[None]:
    """Raise QueueUnavailable in place of the errors of a Redis that is away."""
    try:
        yield
    except OUTAGE as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> QueueUnavailable:
    return QueueUnavailable(f"Redis is not there ({error!r}). {REMEDY}")
