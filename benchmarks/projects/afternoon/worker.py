"""`arq benchmarks.projects.afternoon.worker.WorkerSettings`"""

import os

import django

django.setup()

from asgiref.sync import async_to_sync, sync_to_async  # noqa: E402 - after the setup
from channels.layers import get_channel_layer  # noqa: E402

from benchmarks.projects.afternoon.consumers import redis_settings as connection  # noqa: E402
from benchmarks.projects.afternoon.models import Job  # noqa: E402
from benchmarks.projects.afternoon.tasks import TASKS  # noqa: E402


async def tell(job, **data):
    event = {"type": "job.event", "group": job.group, "data": {"job": str(job.id), **data}}
    await get_channel_layer().group_send(job.group, event)


class Report:
    """Where a task reports to: the row, and the group of its followers."""

    def __init__(self, job):
        self.job = job

    def progress(self, progress):
        self.job.progress = progress
        self.job.save(update_fields=["progress"])
        async_to_sync(tell)(self.job, type="progress", progress=progress)


async def run_job(ctx, job_id):
    job = await Job.objects.aget(id=job_id)
    job.status = "running"
    await job.asave(update_fields=["status"])
    job.result = await sync_to_async(TASKS[job.task])(Report(job), **job.inputs)
    job.status = "finished"
    await job.asave(update_fields=["status", "result"])
    await tell(job, type="finished", result=job.result)


class WorkerSettings:
    functions = [run_job]
    redis_settings = connection()
    poll_delay = float(os.environ.get("BENCH_POLL_DELAY", "0.5"))  # seconds; arq's own default
