"""The side of a worker: it takes jobs out of Redis, on one event loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from arq.constants import job_key_prefix

from taskapi.backends.arq import versions
from taskapi.backends.arq.layout import (
    DEFERRED_SUFFIX,
    STRAY_INFIX,
    health_key,
    queue_key,
    raising_unavailable,
    unavailable,
)
from taskapi.backends.arq.scripts import GIVE_BACK, PROMOTE, SET_ASIDE
from taskapi.backends.base import HEALTH_INTERVAL, WorkerQueue
from taskapi.backends.redis import OUTAGE, async_client
from taskapi.conf import settings

logger = logging.getLogger(__name__)

STRAY_PAUSE = 1.0  # seconds for which a job without a row waits before it can be taken again
STRAY_TRIES = 10  # times that it is given back: if two installations take turns, the right one has had it by then
STRAY_LIFETIME = 600  # seconds for which these are counted

STRAY = (
    "There is no run %s in this worker's database. Either another project or environment shares this Redis: set "
    "TASK_API_REDIS_PREFIX to another name in each. Or the run was deleted. %s"
)


class ArqQueue(WorkerQueue):
    """Takes jobs of `queues`."""

    def __init__(self, queues: Sequence[str]) -> None:
        self.queues = list(queues)
        self._version = versions.this_version()
        set_aside = {versions.set_aside_key(queue, self._version): queue for queue in queues}
        self._queue_of = set_aside | {queue_key(queue): queue for queue in queues}  # by the key of a sorted set
        self._taken: dict[str, list[bytes]] = {queue: [] for queue in queues}  # ids of jobs whose calls are not deleted
        self._out: dict[UUID, str] = {}  # the queues of runs that were taken and are not done
        self.redis: Any = async_client(settings.redis_url)  # Any: its stubs mix the sync and the async client
        self._promote = self.redis.register_script(PROMOTE)
        self._set_aside = self.redis.register_script(SET_ASIDE)
        self._give_back = self.redis.register_script(GIVE_BACK)

    async def take(self, seconds: float) -> UUID | None:
        """Take the first job of the first queue that has one, or wait for one; jobs set aside for us come first."""
        while True:
            try:
                found = await self.redis.bzpopmin(list(self._queue_of), timeout=seconds)
            except OUTAGE as error:
                raise unavailable(error) from error
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
        self._out.pop(uuid, None)

    async def give_back(self, uuid: UUID) -> None:
        """Pass on the job of a run that has no row here: to another version that has workers, or else to any worker.

        Any worker can take it after a pause, a limited number of times: the run may have been deleted.
        """
        queue = self._out.get(uuid)
        if queue is None:
            return
        with raising_unavailable():
            if await self._set_aside(**versions.set_aside(queue, uuid.hex)):
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

        It also deletes the calls of the jobs that were taken since the last time, which would stay for a day, and
        records that this version has workers.
        """
        waits = []
        for queue in self.queues:
            key = queue_key(queue)
            ids, self._taken[queue] = self._taken[queue], []
            jobs = [job_key_prefix.encode() + job_id for job_id in ids]
            sets = [key, key + DEFERRED_SUFFIX, key + versions.VERSIONS_SUFFIX, key + versions.LEFT_SUFFIX]
            keys: list[Any] = [*sets, versions.set_aside_key(queue, self._version), *jobs]
            with raising_unavailable():
                wait = await self._promote(keys=keys, args=[self._version, versions.VERSION_LIFETIME * 1000, *ids])
            waits.append(wait)
        return min((wait / 1000 for wait in waits if wait >= 0), default=None)

    async def record_health(self, text: str) -> None:
        """Record that a worker is well; the record outlives two intervals."""
        with raising_unavailable():
            for queue in self.queues:
                await self.redis.set(health_key(queue), text, ex=2 * HEALTH_INTERVAL)

    async def close(self) -> None:
        """Close the connections. Other workers of this version record again that it has workers, within a second."""
        with suppress(*OUTAGE):  # the record of this version runs out by itself
            for queue in self.queues:
                await self.redis.zrem(queue_key(queue) + versions.VERSIONS_SUFFIX, self._version)
        await self.redis.aclose()


def _uuid(job_id: bytes) -> UUID | None:
    """The run that a job is for, by the job's id; None, and a line in the log, if it is no job of this package."""
    try:
        return UUID(job_id.decode())
    except ValueError:
        logger.error("Dropped a job that is not one of this project's: %r", job_id)
        return None
