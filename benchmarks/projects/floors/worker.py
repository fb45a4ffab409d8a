"""`arq benchmarks.projects.floors.worker.WorkerSettings`: no database, no Django."""

import os

from arq.connections import RedisSettings

from benchmarks.projects import stamps


async def nothing(ctx):
    pass


async def stamp(ctx):
    stamps.leave()


class WorkerSettings:
    functions = [nothing, stamp]
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
    poll_delay = float(os.environ["BENCH_POLL_DELAY"])  # seconds
    max_jobs = 50
    keep_result = 0
