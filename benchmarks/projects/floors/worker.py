"""`arq benchmarks.projects.floors.worker.WorkerSettings`: no database, no Django."""

import os

from arq.connections import RedisSettings


async def nothing(ctx):
    pass


class WorkerSettings:
    functions = [nothing]
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
    poll_delay = float(os.environ["BENCH_POLL_DELAY"])  # seconds
    max_jobs = 50
    keep_result = 0
