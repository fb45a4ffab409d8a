"""From enqueueing to the first line of a task: the task leaves its moment in Redis, and the one who queued it waits."""

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
SETTLED = 0.005  # seconds after which the end of the task before is dealt with


@cache
def client() -> Redis:
    return Redis.from_url(os.environ["BENCH_REDIS_URL"])


def leave() -> None:
    """Say that a task begins now."""
    moment = time.time()
    client().rpush(KEY, repr(moment))


def measure(enqueue: Callable[[], float]) -> None:
    """Print the seconds of so many starts as JSON; `enqueue` queues one, and returns the moment before.

    The arguments of the command say how many, after how many seconds to be content with fewer, and how long to pause
    at most between two: where a worker polls, each is queued somewhere in the interval.
    """
    runs, seconds, pause = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    client().ping()  # connected before it counts
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
