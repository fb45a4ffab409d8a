"""The time from just before arq gets the job, after the row is saved, to the first line of the task."""

import asyncio
import time

import django

from benchmarks.projects import stamps

django.setup()

from arq import create_pool  # noqa: E402 - after the setup

from benchmarks.projects.afternoon.consumers import redis_settings  # noqa: E402
from benchmarks.projects.afternoon.models import Job  # noqa: E402

if __name__ == "__main__":
    with asyncio.Runner() as runner:
        pool = runner.run(create_pool(redis_settings()))

        def enqueue() -> float:
            job = Job.objects.create(task="stamp", inputs={})
            queued = time.time()
            runner.run(pool.enqueue_job("run_job", str(job.id)))
            return queued

        stamps.measure(enqueue)
