"""The time from enqueueing to the first line of a task, which writes its moment to Redis, where the caller waits."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from functools import cache

from redis import Redis

KEY = "bench:stamps"
WARM_UP = 10
LIMIT = 20  # seconds
SETTLED = 0.005  # seconds until the end of the task before is recorded


@cache
def client() -> Redis:
    return Redis.from_url(os.environ["BENCH_REDIS_URL"])


def leave() -> None:
    """Write to Redis that the task begins now."""
    moment = time.time()
    client().rpush(KEY, repr(moment))


def measure(enqueue: Callable[[], float]) -> None:
    """Print the seconds of many starts as JSON; `enqueue` queues one task, and returns the moment before.

    The arguments of the command are the number of starts, a limit in seconds, and the longest pause between two: if a
    worker polls, tasks are queued at all moments of its interval.
    """
    runs, seconds, pause = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    client().ping()  # connect before anything is timed
    times: list[float] = []
    deadline = time.monotonic() + seconds
    while len(times) < WARM_UP + runs and (time.monotonic() < deadline or len(times) <= WARM_UP):
        time.sleep(SETTLED + random.uniform(0, pause))  # noqa: S311 - no secret
        queued = enqueue()
        stamp = client().blpop([KEY], timeout=LIMIT)
        if stamp is None:
            raise TimeoutError(f"A task did not begin within {LIMIT} s.")
        times.append(float(stamp[1]) - queued)
    print(json.dumps(times[WARM_UP:]))
