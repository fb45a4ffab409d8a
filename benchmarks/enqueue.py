"""Run by benchmarks.latency inside the stack's environment: prints the seconds from enqueue to start, as JSON."""

from __future__ import annotations

import json
import time

import django

RUNS = 200
WARM_UP = 20


def main() -> None:
    from django.db import transaction

    from tests.project.tasks import Stamp

    times = []
    for _ in range(WARM_UP + RUNS):
        queued: list[float] = []
        with transaction.atomic():
            # called in turn after the commit: the clock is read, and then the job is queued
            transaction.on_commit(lambda queued=queued: queued.append(time.time()))
            info = Stamp.start()
        times.append(info.result(timeout=10)["began"] - queued[0])
    print(json.dumps(times[WARM_UP:]))


if __name__ == "__main__":
    django.setup()
    main()
