"""Queue many jobs at once that do nothing, wait for the last, and print the figures as JSON."""

import asyncio
import json
import sys
import time

from arq import create_pool
from arq.constants import default_queue_name

from benchmarks.projects.floors.worker import WorkerSettings

LOOK = 0.005  # seconds between two looks at the queue


async def main(jobs: int) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    begun = time.perf_counter()
    await asyncio.gather(*(pool.enqueue_job("nothing") for _ in range(jobs)))
    while await pool.zcard(default_queue_name):  # noqa: ASYNC110 - a finished job leaves the queue
        await asyncio.sleep(LOOK)
    print(json.dumps({"rate": jobs / (time.perf_counter() - begun), "ended": 1.0, "runs": jobs}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
