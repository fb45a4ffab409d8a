"""Runs queued as arq jobs in Redis: the one module that knows how arq lays out its queue.

A job is what arq's own `enqueue_job` would write, serialised as JSON and never pickled: a key that holds
the call, and the job's id, scored by the moment from which it may run, in the queue's sorted set. Two
things differ from stock arq:

- Enqueueing also leaves a token on a list, on which idle workers block: one token wakes one worker. A
  stock worker polls, every 0.5 s.
- A worker that claims a job takes it out of the queue, in one script: stock arq leaves it there behind an
  in-progress key that outlives a crashed worker by hours. Here the row of the run knows who executes it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from arq.constants import expires_extra_ms, health_check_key_suffix, job_key_prefix
from arq.jobs import DeserializationError, deserialize_job_raw, serialize_job
from redis.exceptions import RedisError

from taskapi.backends.base import Backend
from taskapi.conf import settings
from taskapi.redis import async_client, sync_client

logger = logging.getLogger(__name__)

FUNCTION = "run_task"  # the name of the arq function; its one argument is the run's uuid
QUEUE_PREFIX = "taskapi:queue:"  # then the name of the queue
TOKEN_SUFFIX = ":wake"  # of the list of tokens of a queue
MAX_TOKENS = 1000  # a token a waiting job; where more wait, workers find the rest without being woken
HEALTH_INTERVAL = 30  # seconds between two records of a worker's health, for `arq --check`

# KEYS: queue, tokens, job. ARGV: job id, job, milliseconds from now until it may run, lifetime in
# milliseconds, most tokens. Scores are of Redis's clock, so that the clocks of hosts do not matter.
ENQUEUE = """
local time = redis.call('TIME')
local score = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4] + ARGV[3])
redis.call('ZADD', KEYS[1], 'NX', score, ARGV[1])
if tonumber(ARGV[3]) == 0 and redis.call('LLEN', KEYS[2]) < tonumber(ARGV[5]) then
    redis.call('RPUSH', KEYS[2], ARGV[1])
end
"""

# KEYS: queue. ARGV: most jobs, prefix of a job's key. Takes due jobs out of the queue, oldest first.
# Returns their ids and calls (false where the call has expired) in turn, then the milliseconds until the
# next job that is left is due, or -1 where none is.
CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local jobs = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
    redis.call('ZREM', KEYS[1], id)
    table.insert(jobs, id)
    table.insert(jobs, redis.call('GET', ARGV[2] .. id))
    redis.call('DEL', ARGV[2] .. id)
end
local left = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
table.insert(jobs, left[2] and math.max(0, math.ceil(left[2] - now)) or -1)
return jobs
"""


def queue_key(queue: str) -> str:
    return QUEUE_PREFIX + queue


def health_key(queue: str) -> str:
    """Where a worker of the queue says that it is well; what ``arq --check`` reads."""
    return queue_key(queue) + health_check_key_suffix


def serialize(job: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: JSON, so that whoever can write to Redis cannot run code in a worker."""
    return json.dumps(job).encode()


class ArqBackend(Backend):
    """The default: arq workers, woken through Redis."""

    def __init__(self) -> None:
        self.redis = sync_client(settings.redis_url)
        self._enqueue = self.redis.register_script(ENQUEUE)

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        job_id = uuid.hex
        delay = 0 if run_at is None else max(0, round((run_at.timestamp() - time.time()) * 1000))
        job = serialize_job(FUNCTION, (job_id,), {}, None, round(time.time() * 1000), serializer=serialize)
        key = queue_key(queue)
        self._enqueue(
            keys=[key, key + TOKEN_SUFFIX, job_key_prefix + job_id],
            args=[job_id, job, delay, expires_extra_ms, MAX_TOKENS],
        )

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue."""
        asked = list(uuids)
        if not asked:
            return []
        scores: Any = self.redis.zmscore(queue_key(queue), [uuid.hex for uuid in asked])
        return [uuid for uuid, score in zip(asked, scores, strict=True) if score is None]


class Claim(NamedTuple):
    """What a worker took from a queue, and how many seconds remain until the next job is due (None: no job)."""

    uuids: list[UUID]
    next_due: float | None


class WorkerQueue:
    """A worker's side of its queues, on one event loop.

    Two connections: one that waits for tokens, and one for everything else.
    """

    def __init__(self, queues: Iterable[str], url: str | None = None) -> None:
        self.keys = [queue_key(queue) for queue in queues]
        self.tokens = [key + TOKEN_SUFFIX for key in self.keys]
        self.redis: Any = async_client(  # its stubs mix the sync and the async client
            url or settings.redis_url
        )
        self._claim = self.redis.register_script(CLAIM)

    async def claim(self, most: int) -> Claim:
        """Take up to `most` due jobs out of the queues, in the order in which the queues are named."""
        uuids: list[UUID] = []
        due: list[float] = []
        for key in self.keys:
            *jobs, wait_ms = await self._claim(keys=[key], args=[most - len(uuids), job_key_prefix])
            for job_id, job in zip(jobs[::2], jobs[1::2], strict=True):
                uuid = _uuid(job_id, job)
                if uuid is not None:
                    uuids.append(uuid)
            if wait_ms >= 0:
                due.append(wait_ms / 1000)
            if len(uuids) >= most:
                break
        return Claim(uuids, min(due, default=None))

    async def wait(self, seconds: float) -> None:
        """Return once a token is left for this worker, or after `seconds`."""
        await self.redis.blpop(self.tokens, timeout=max(seconds, 0.001))

    async def is_empty(self) -> bool:
        """Whether no job is left, due or not."""
        return not any([await self.redis.zcard(key) for key in self.keys])

    async def record_health(self, text: str) -> None:
        """Say that a worker is well; the record outlives two intervals."""
        for key in self.keys:
            await self.redis.set(key + health_check_key_suffix, text, ex=2 * HEALTH_INTERVAL)

    async def close(self) -> None:
        await self.redis.aclose()


def _uuid(job_id: bytes, job: bytes | None) -> UUID | None:
    """The run that a job asks for; None, and a line in the log, for what is no job of ours."""
    try:
        if job is None:  # the call expired before anybody took it; the id says as much
            return UUID(job_id.decode())
        function, args, *_ = deserialize_job_raw(job, deserializer=json.loads)
        if function != FUNCTION:
            raise ValueError(f"expected the function {FUNCTION}, got {function}")
        return UUID(args[0])
    except (DeserializationError, ValueError, LookupError, AttributeError) as error:
        logger.error("Dropped a job that is not one of this project's: %r (%s)", job_id, error)
        return None


#: What Redis raises while it is away, starts, or has lost its master: a worker waits it out.
Unavailable = (RedisError, OSError)

__all__ = ["ArqBackend", "Claim", "Unavailable", "WorkerQueue", "health_key", "queue_key", "serialize"]
