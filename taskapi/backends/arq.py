"""Runs queued as arq jobs in Redis: the one module that knows how arq lays out its queue.

A job is what arq's own `enqueue_job` would write, serialised as JSON and never pickled: a key that holds
the call, and the job's id in the queue's sorted set. Two things differ from stock arq:

- A worker blocks on the sorted set (BZPOPMIN) where a stock worker polls it every 0.5 s: Redis hands a new
  job to one waiting worker, in one round trip. Jobs that are not due yet wait in a second sorted set.
- So a job leaves the queue when a worker takes it. Stock arq leaves it there behind an in-progress key,
  which outlives a crashed worker by hours; here the row of the run knows who executes it.

Not every worker of a queue can execute every run: during a deploy, some do not know a task yet, or not its inputs; and
those of another installation on the same Redis have no row of it. So workers of the same code and database are of one
version (taskapi.tasks.registry), and each version has a set of its own beside the queue, on which its workers block as
well. What one of them has to leave it sets aside for the next version that is there, until each has been asked once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from arq.constants import expires_extra_ms, health_check_key_suffix, job_key_prefix
from arq.jobs import serialize_job
from redis.exceptions import RedisError

from taskapi.backends.base import Backend
from taskapi.backends.redis import Breaker, async_client, sync_client
from taskapi.conf import settings
from taskapi.tasks.registry import version

logger = logging.getLogger(__name__)

FUNCTION = "run_task"  # the name of the arq function; its one argument is the run's uuid
QUEUE_INFIX = ":queue:"  # after TASK_API_REDIS_PREFIX; then the name of the queue
DEFERRED_SUFFIX = ":deferred"  # of the sorted set of a queue's jobs that are not due yet
VERSIONS_SUFFIX = ":versions"  # of the sorted set of the versions that work on a queue, by when they say so again
VERSION_SUFFIX = ":version:"  # then a version: of the sorted set of the jobs that were set aside for it
LEFT_SUFFIX = ":left"  # of the sorted set of a queue's jobs that no version has taken which is there
LEFT_INFIX = ":left:"  # after the prefix; then a job's id: of the set of the versions that have left it
STRAY_INFIX = ":stray:"  # the same: of the number of times that it was given back, for want of a row
VERSION_LIFETIME = 15  # seconds: a version that has not said for so long that it is there has ended, or was killed
LEFT_LIFETIME = 5  # seconds after which a version that has left a run may be asked again: before anybody is, once more
ASIDE_LIFETIME = 3600  # seconds after which nobody has come for what was set aside
STRAY_PAUSE = 1.0  # seconds for which a job without a row waits before it is offered again
STRAY_TRIES = 10  # times that it is: of two installations that take turns, the right one has had it by then
STRAY_LIFETIME = 600  # seconds for which these are counted
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

# KEYS: queue, deferred jobs, versions, what no version has taken, what was set aside for this version, then the key of
# each job that was taken out of the queue. ARGV: this version, its lifetime in milliseconds, then the ids of these
# jobs. Says that the version is there, and gives it what all others have left, if it was not there before. Moves what
# is due to the queue, and deletes those jobs which have not been queued again. Returns the milliseconds until the next
# one is due, or -1 where none waits.
PROMOTE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.17g', now))
if redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1]) == 1 then
    local left = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
    for n = 1, #left, 2 do
        redis.call('ZADD', KEYS[5], 'NX', left[n + 1], left[n])
    end
    redis.call('UNLINK', KEYS[4])
end
for n = 3, #ARGV do
    local id = ARGV[n]
    if not redis.call('ZSCORE', KEYS[1], id) and not redis.call('ZSCORE', KEYS[2], id) then
        redis.call('UNLINK', KEYS[n + 3])
    end
end
local range = {KEYS[2], '-inf', string.format('%.17g', now), 'BYSCORE', 'LIMIT', 0, 1000, 'WITHSCORES'}
local due = redis.call('ZRANGE', unpack(range))
for n = 1, #due, 2 do
    redis.call('ZREM', KEYS[2], due[n])
    redis.call('ZADD', KEYS[1], 'NX', due[n + 1], due[n])
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return next[2] and math.max(0, math.ceil(next[2] - now)) or -1
"""

# KEYS: versions, the set of those that have left the job, what no version has taken. ARGV: the one that leaves it now,
# the job's id, the prefix of the keys of what is set aside, the lifetimes in seconds of the job and of the set of
# versions. Sets the job aside for a version that is there and has not left it, or else for one that comes. Returns 1,
# or 0 where there is none.
SET_ASIDE = """
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for _, version in ipairs(redis.call('ZRANGE', KEYS[1], string.format('%.17g', now), '+inf', 'BYSCORE')) do
    if redis.call('SISMEMBER', KEYS[2], version) == 0 then
        redis.call('ZADD', ARGV[3] .. version, 'NX', now, ARGV[2])
        redis.call('EXPIRE', ARGV[3] .. version, ARGV[4])
        return 1
    end
end
redis.call('ZADD', KEYS[3], 'NX', now, ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 0
"""

# KEYS: queue, deferred jobs, the number of times that the job was given back. ARGV: its id, the milliseconds until it
# may be taken again, how often that may be, the lifetime of the number in seconds. Returns how often it was.
GIVE_BACK = """
local times = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
if times <= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    local time = redis.call('TIME')
    redis.call('ZADD', KEYS[2], 'NX', time[1] * 1000 + time[2] / 1000 + ARGV[2], ARGV[1])
end
return times
"""


def queue_key(queue: str) -> str:
    return settings.redis_prefix + QUEUE_INFIX + queue


def _set_aside(queue: str, job_id: str) -> dict[str, Any]:
    """What SET_ASIDE is called with, for a job that this process leaves."""
    key = queue_key(queue)
    keys = [key + VERSIONS_SUFFIX, settings.redis_prefix + LEFT_INFIX + job_id, key + LEFT_SUFFIX]
    return {"keys": keys, "args": [version(), job_id, key + VERSION_SUFFIX, ASIDE_LIFETIME, LEFT_LIFETIME]}


def health_key(queue: str) -> str:
    """Where a worker of the queue says that it is well; what ``arq --check`` reads."""
    return queue_key(queue) + health_check_key_suffix


def serialize(job: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: JSON, so that whoever can write to Redis cannot run code in a worker."""
    return json.dumps(job).encode()


#: What Redis raises while it is away, starts, or has lost its master: a worker waits it out.
Unavailable = (RedisError, OSError)

STRAY = (
    "There is no run %s in this worker's database. Either another project or environment shares this Redis: set "
    "TASK_API_REDIS_PREFIX to another name in each. Or the run was deleted. %s"
)


class _Job(NamedTuple):
    id: str
    queue: str
    run_at: datetime | None


class ArqBackend(Backend):
    """The default: arq workers, woken through Redis."""

    def __init__(self) -> None:
        self.redis = sync_client(settings.redis_url)
        self._enqueue = self.redis.register_script(ENQUEUE)
        self._set_aside = self.redis.register_script(SET_ASIDE)
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

    def set_aside(self, uuid: UUID, *, queue: str) -> None:
        with self._breaker.guard():
            self._set_aside(**_set_aside(queue, uuid.hex))

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue."""
        asked = list(uuids)
        if not asked:
            return []
        key, ids = queue_key(queue), [uuid.hex for uuid in asked]
        with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.zmscore(key + DEFERRED_SUFFIX, ids)  # first: what is due moves from there to the queue
            pipeline.zmscore(key, ids)
            deferred, queued = pipeline.execute()
        return [uuid for uuid, *scores in zip(asked, queued, deferred, strict=True) if scores == [None, None]]


class WorkerQueue:
    """The side of a worker, on one event loop."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = list(queues)
        self.keys = [queue_key(queue) for queue in queues]
        self._version = version()
        set_aside = {queue_key(queue) + VERSION_SUFFIX + self._version: queue for queue in queues}
        self._queue_of = set_aside | {queue_key(queue): queue for queue in queues}  # by the set that jobs are taken of
        self._taken: dict[str, list[bytes]] = {queue: [] for queue in queues}  # ids of jobs whose calls are still there
        self._out: dict[UUID, str] = {}  # runs that were taken and are not done with; their queues
        self.redis: Any = async_client(settings.redis_url)  # Any: its stubs mix the sync and the async client
        self._promote = self.redis.register_script(PROMOTE)
        self._set_aside = self.redis.register_script(SET_ASIDE)
        self._give_back = self.redis.register_script(GIVE_BACK)

    async def take(self, seconds: float) -> UUID | None:
        """Take a job out of the first queue that has one, or wait up to `seconds` for one; set aside ones come first.

        To be awaited to its end: what Redis has handed over is in no queue any more.
        """
        while True:
            found = await self.redis.bzpopmin(list(self._queue_of), timeout=seconds)
            if found is None:
                return None
            taken_from, job_id, _ = found
            queue = self._queue_of[taken_from.decode()]
            self._taken[queue].append(job_id)
            uuid = _uuid(job_id)
            if uuid is not None:
                self._out[uuid] = queue
                return uuid

    def done(self, uuid: UUID) -> None:
        """There is nothing more to do for a run that was taken."""
        self._out.pop(uuid, None)

    async def give_back(self, uuid: UUID) -> None:
        """Pass on the job of a run that has no row here: at once to another version that is there, or else to anybody.

        To anybody after a pause, and not for ever: the run may have been deleted.
        """
        queue = self._out.get(uuid)
        if queue is None:
            return
        if await self._set_aside(**_set_aside(queue, uuid.hex)):
            logger.warning(STRAY, uuid, "It is left to workers of another version.")
            return
        key = queue_key(queue)
        keys = [key, key + DEFERRED_SUFFIX, settings.redis_prefix + STRAY_INFIX + uuid.hex]
        times = await self._give_back(keys=keys, args=[uuid.hex, STRAY_PAUSE * 1000, STRAY_TRIES, STRAY_LIFETIME])
        if times > STRAY_TRIES:
            logger.warning("The job of run %s is dropped: no worker that took it has a row of that run.", uuid)
        elif times == 1:
            logger.warning(STRAY, uuid, f"Its job is given back, at most {STRAY_TRIES} times.")

    async def promote(self) -> float | None:
        """Move deferred jobs that are due to their queues; the seconds until the next is due, None without one.

        What was taken since the last time is cleared away with it: else it stays for a day. And it says to others that
        this version is there.
        """
        waits = []
        for queue in self.queues:
            key = queue_key(queue)
            ids, self._taken[queue] = self._taken[queue], []
            jobs = [job_key_prefix.encode() + job_id for job_id in ids]
            sets = [key, key + DEFERRED_SUFFIX, key + VERSIONS_SUFFIX, key + LEFT_SUFFIX]
            keys: list[Any] = [*sets, key + VERSION_SUFFIX + self._version, *jobs]
            waits.append(await self._promote(keys=keys, args=[self._version, VERSION_LIFETIME * 1000, *ids]))
        return min((wait / 1000 for wait in waits if wait >= 0), default=None)

    async def record_health(self, text: str) -> None:
        """Say that a worker is well; the record outlives two intervals."""
        for key in self.keys:
            await self.redis.set(key + health_check_key_suffix, text, ex=2 * HEALTH_INTERVAL)

    async def close(self) -> None:
        """Close the connections. Where other workers of this version are there, they say so again at once."""
        with suppress(*Unavailable):  # they will see for themselves
            for key in self.keys:
                await self.redis.zrem(key + VERSIONS_SUFFIX, self._version)
        await self.redis.aclose()


def _uuid(job_id: bytes) -> UUID | None:
    """The run that a job is for: its id says it. None, and a line in the log, for what is no job of ours."""
    try:
        return UUID(job_id.decode())
    except ValueError:
        logger.error("Dropped a job that is not one of this project's: %r", job_id)
        return None
