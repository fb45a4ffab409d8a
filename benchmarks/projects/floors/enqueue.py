"""From the moment before arq is given a job to the job's first line."""

import asyncio
import time

from arq import create_pool

from benchmarks.projects import stamps
from benchmarks.projects.floors.worker import WorkerSettings

if __name__ == "__main__":
    with asyncio.Runner() as runner:
        pool = runner.run(create_pool(WorkerSettings.redis_settings))

        def enqueue() -> float:
            queued = time.time()
            runner.run(pool.enqueue_job("stamp"))
            return queued

        stamps.measure(enqueue)
