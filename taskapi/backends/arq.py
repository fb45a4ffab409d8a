"""Runs queued as arq jobs in Redis: the one module that knows how arq lays out its queue.

A job is what arq's own `enqueue_job` would write, serialised as JSON and never pickled: a key that holds
the call, and the job's id in the queue's sorted set. Two things differ from stock arq:

- A worker blocks on the sorted set (BZPOPMIN) where a stock worker polls it every 0.5 s: Redis hands a new
  job to one waiting worker, in one round trip. Jobs that are not due yet wait in a second sorted set.
- So a job leaves the queue when a worker takes it. Stock arq leaves it there behind an in-progress key,
  which outlives a crashed worker by hours; here the row of the run knows who executes it.

During a deploy, some workers do not know a task yet. What they have taken of it they set aside, in a set of the
queue for each task, on which only those workers block that know it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from arq.constants import expires_extra_ms, health_check_key_suffix, job_key_prefix
from arq.jobs import serialize_job
from redis.exceptions import RedisError

from taskapi.backends.base import Backend
from taskapi.conf import settings
from taskapi.redis import Breaker, async_client, sync_client

logger = logging.getLogger(__name__)

FUNCTION = "run_task"  # the name of the arq function; its one argument is the run's uuid
QUEUE_PREFIX = "taskapi:queue:"  # then the name of the queue
DEFERRED_SUFFIX = ":deferred"  # of the sorted set of a queue's jobs that are not due yet
TASK_SUFFIX = ":task:"  # then the name of the task, of which the sorted set holds jobs that were set aside
ASIDE_LIFETIME = 3600  # seconds after which nobody has come for what was set aside
HEALTH_INTERVAL = 30  # seconds between two records of a worker's health, for `arq --check`

# KEYS: queue, deferred jobs, then the key of each job. ARGV: lifetime in milliseconds, then of each job its id,
# itself, and the milliseconds until it may run. Scores are milliseconds, and parts of them, of Redis's clock: first
# in is first out, and the clocks of hosts do not matter. Jobs that come together are a microsecond apart.
ENQUEUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for n = 3, #KEYS do
    local at = 3 * n - 7
    local id, job, delay = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    redis.call('SET', KEYS[n], job, 'PX', ARGV[1] + delay)
    redis.call('ZADD', delay > 0 and KEYS[2] or KEYS[1], 'NX', now + delay + n / 1000, id)
end
"""

# KEYS: queue, deferred jobs, then the key of each job that was taken out of the queue. ARGV: their ids. Moves what is
# due to the queue, and deletes those jobs which have not been queued again. Returns the milliseconds until the next
# one is due, or -1 where none waits.
PROMOTE = """
for n, id in ipairs(ARGV) do
    if not redis.call('ZSCORE', KEYS[1], id) and not redis.call('ZSCORE', KEYS[2], id) then
        redis.call('UNLINK', KEYS[n + 2])
    end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local range = {KEYS[2], '-inf', string.format('%.17g', now), 'BYSCORE', 'LIMIT', 0, 1000, 'WITHSCORES'}
local due = redis.call('ZRANGE', unpack(range))
for n = 1, #due, 2 do
    redis.call('ZREM', KEYS[2], due[n])
    redis.call('ZADD', KEYS[1], 'NX', due[n + 1], due[n])
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return next[2] and math.max(0, math.ceil(next[2] - now)) or -1
"""


def queue_key(queue: str) -> str:
    return QUEUE_PREFIX + queue


def task_key(queue: str, task: str) -> str:
    """Where the jobs wait which a worker that does not know their task has set aside."""
    return queue_key(queue) + TASK_SUFFIX + task


def health_key(queue: str) -> str:
    """Where a worker of the queue says that it is well; what ``arq --check`` reads."""
    return queue_key(queue) + health_check_key_suffix


def serialize(job: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: JSON, so that whoever can write to Redis cannot run code in a worker."""
    return json.dumps(job).encode()


class _Job(NamedTuple):
    id: str
    queue: str
    run_at: datetime | None


class ArqBackend(Backend):
    """The default: arq workers, woken through Redis."""

    def __init__(self) -> None:
        self.redis = sync_client(settings.redis_url)
        self._enqueue = self.redis.register_script(ENQUEUE)
        self._breaker = Breaker()
        self._collected = threading.local()  # `.jobs`: a list while the thread is inside `together`

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        job = _Job(uuid.hex, queue, run_at)
        collected: list[_Job] | None = getattr(self._collected, "jobs", None)
        if collected is None:
            self._send([job])
        else:
            collected.append(job)

    @contextmanager
    def together(self) -> Iterator[None]:
        jobs = self._collected.jobs = []
        try:
            yield
        finally:
            self._collected.jobs = None
            try:
                self._send(jobs)
            except Exception as error:  # noqa: BLE001 - as for one: none may undo what is committed
                logger.warning("%d runs are recorded but could not be queued yet: %r", len(jobs), error)

    def _send(self, jobs: Iterable[_Job]) -> None:
        now = time.time()
        by_queue = defaultdict(list)
        for job in jobs:
            by_queue[queue_key(job.queue)].append(job)
        for key, its in by_queue.items():
            keys = [key, key + DEFERRED_SUFFIX]
            args: list[Any] = [expires_extra_ms]
            for job in its:
                keys.append(job_key_prefix + job.id)
                delay = 0 if job.run_at is None else max(0, round((job.run_at.timestamp() - now) * 1000))
                call = serialize_job(FUNCTION, (job.id,), {}, None, round(now * 1000), serializer=serialize)
                args += [job.id, call, delay]
            with self._breaker.guard():
                self._enqueue(keys=keys, args=args)

    def set_aside(self, uuid: UUID, *, queue: str, task: str) -> None:
        key = task_key(queue, task)
        with self._breaker.guard(), self.redis.pipeline() as pipeline:
            pipeline.zadd(key, {uuid.hex: time.time()}, nx=True)
            pipeline.expire(key, ASIDE_LIFETIME)
            pipeline.execute()

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue."""
        asked = list(uuids)
        if not asked:
            return []
        key, ids = queue_key(queue), [uuid.hex for uuid in asked]
        queued: Any = self.redis.zmscore(key, ids)
        deferred: Any = self.redis.zmscore(key + DEFERRED_SUFFIX, ids)
        return [uuid for uuid, *scores in zip(asked, queued, deferred, strict=True) if scores == [None, None]]


class WorkerQueue:
    """The side of a worker that knows these tasks of its queues, on one event loop."""

    def __init__(self, queues: Sequence[str], tasks: Collection[str] = ()) -> None:
        self.keys = [queue_key(queue) for queue in queues]
        set_aside = {task_key(queue, task): queue_key(queue) for queue in queues for task in tasks}
        self._queue_of = set_aside | {key: key for key in self.keys}  # by the set that jobs are taken out of
        self._taken: dict[str, list[bytes]] = {key: [] for key in self.keys}  # ids of jobs whose calls are in Redis yet
        self.redis: Any = async_client(settings.redis_url)  # Any: its stubs mix the sync and the async client
        self._promote = self.redis.register_script(PROMOTE)

    async def take(self, seconds: float) -> UUID | None:
        """Take a job out of the first queue that has one, or wait up to `seconds` for one; set aside ones come first.

        To be awaited to its end: what Redis has handed over is in no queue any more.
        """
        while True:
            found = await self.redis.bzpopmin(list(self._queue_of), timeout=seconds)
            if found is None:
                return None
            taken_from, job_id, _ = found
            self._taken[self._queue_of[taken_from.decode()]].append(job_id)
            uuid = _uuid(job_id)
            if uuid is not None:
                return uuid

    async def promote(self) -> float | None:
        """Move deferred jobs that are due to their queues; the seconds until the next is due, None without one.

        What was taken since the last time is cleared away with it: else it stays for a day.
        """
        waits = []
        for key in self.keys:
            ids, self._taken[key] = self._taken[key], []
            jobs = [job_key_prefix.encode() + job_id for job_id in ids]
            waits.append(await self._promote(keys=[key, key + DEFERRED_SUFFIX, *jobs], args=ids))
        return min((wait / 1000 for wait in waits if wait >= 0), default=None)

    async def record_health(self, text: str) -> None:
        """Say that a worker is well; the record outlives two intervals."""
        for key in self.keys:
            await self.redis.set(key + health_check_key_suffix, text, ex=2 * HEALTH_INTERVAL)

    async def close(self) -> None:
        await self.redis.aclose()


def _uuid(job_id: bytes) -> UUID | None:
    """The run that a job is for: its id says it. None, and a line in the log, for what is no job of ours."""
    try:
        return UUID(job_id.decode())
    except ValueError:
        logger.error("Dropped a job that is not one of this project's: %r", job_id)
        return None


#: What Redis raises while it is away, starts, or has lost its master: a worker waits it out.
Unavailable = (RedisError, OSError)
