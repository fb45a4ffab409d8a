"""The side that starts runs: their jobs are written to Redis, from any thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from arq.constants import expires_extra_ms, job_key_prefix

from taskapi.backends.arq import versions
from taskapi.backends.arq.layout import DEFERRED_SUFFIX, call, queue_key, raising_unavailable
from taskapi.backends.arq.queue import ArqQueue
from taskapi.backends.arq.scripts import ENQUEUE, HAS_WORKER, SET_ASIDE
from taskapi.backends.base import Backend
from taskapi.backends.redis import Breaker, sync_client
from taskapi.conf import settings

logger = logging.getLogger(__name__)


class _Job(NamedTuple):
    id: str
    queue: str
    run_at: datetime | None


class ArqBackend(Backend):
    """The default: arq jobs, whose workers are woken by Redis."""

    def __init__(self) -> None:
        self.redis = sync_client(settings.redis_url)
        self._enqueue = self.redis.register_script(ENQUEUE)
        self._set_aside = self.redis.register_script(SET_ASIDE)
        self._has_worker = self.redis.register_script(HAS_WORKER)
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
            except Exception as error:  # noqa: BLE001 - as for one run: no error may undo what is committed
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
                args += [job.id, call(job.id, now), delay]
            with raising_unavailable(), self._breaker.guard():
                self._enqueue(keys=keys, args=args)

    def set_aside(self, uuid: UUID, *, queue: str) -> None:
        with raising_unavailable(), self._breaker.guard():
            self._set_aside(**versions.set_aside(queue, uuid.hex))

    def missing(self, queue: str, uuids: Iterable[UUID]) -> list[UUID]:
        """Those of the runs that have no job in the queue."""
        asked = list(uuids)
        if not asked:
            return []
        key, ids = queue_key(queue), [uuid.hex for uuid in asked]
        with raising_unavailable(), self.redis.pipeline(transaction=False) as pipeline:
            pipeline.zmscore(key + DEFERRED_SUFFIX, ids)  # first: a job that is due moves from there to the queue
            pipeline.zmscore(key, ids)
            deferred, queued = pipeline.execute()
        return [uuid for uuid, *scores in zip(asked, queued, deferred, strict=True) if scores == [None, None]]

    def has_worker(self, queue: str) -> bool:
        """Whether any worker has said within seconds that it takes the queue (`ArqQueue.promote`)."""
        with raising_unavailable(), self._breaker.guard():
            return bool(self._has_worker(keys=[queue_key(queue) + versions.VERSIONS_SUFFIX]))

    def worker_queue(self, queues: Sequence[str]) -> ArqQueue:
        return ArqQueue(queues)
