from functools import cache

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings

from benchmarks.projects.afternoon.models import Job


@cache
def redis_settings() -> RedisSettings:
    return RedisSettings.from_dsn(settings.REDIS_URL)


class JobConsumer(AsyncJsonWebsocketConsumer):
    """Starts jobs, and passes on the messages of their groups."""

    pool: ArqRedis | None = None  # one for the process

    async def connect(self):
        if JobConsumer.pool is None:
            JobConsumer.pool = await create_pool(redis_settings())
        self.jobs = set()
        await self.accept()

    async def disconnect(self, code):
        for job in self.jobs:
            await self.channel_layer.group_discard(job, self.channel_name)

    async def receive_json(self, content):
        if content["type"] == "run":
            job = await Job.objects.acreate(task=content["task"], inputs=content["inputs"])
            await self.follow(job.group)
            await self.send_json({"type": "accepted", "ref": content["ref"], "job": str(job.id)})
            await self.pool.enqueue_job("run_job", str(job.id))
        elif content["type"] == "follow":
            job = await Job.objects.aget(id=content["job"])
            await self.follow(job.group)
            await self.send_json({"type": "job", "job": str(job.id), "status": job.status, "progress": job.progress})

    async def follow(self, group):
        self.jobs.add(group)
        await self.channel_layer.group_add(group, self.channel_name)

    async def job_event(self, event):
        await self.send_json(event["data"])
        if event["data"]["type"] == "finished":
            group = event["group"]
            self.jobs.discard(group)
            await self.channel_layer.group_discard(group, self.channel_name)
