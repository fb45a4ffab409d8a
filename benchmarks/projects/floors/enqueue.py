"""The time from just before a push to a list until a process that blocks on the list has the item."""

import subprocess
import sys
import time

from benchmarks.projects import stamps
from benchmarks.projects.floors.waiter import QUEUE


def enqueue() -> float:
    queued = time.time()
    stamps.client().rpush(QUEUE, "stamp")
    return queued


if __name__ == "__main__":
    with subprocess.Popen([sys.executable, "-m", "benchmarks.projects.floors.waiter"]):
        try:
            stamps.measure(enqueue)
        finally:
            stamps.client().rpush(QUEUE, "end")
