"""The time from just before the job is queued, after the commit, to the first line of `run`."""

import time

import django

from benchmarks.projects import stamps

django.setup()

from django.db import transaction  # noqa: E402 - after the setup

from benchmarks.projects.ours.background import Stamp  # noqa: E402


def enqueue() -> float:
    moments = []
    with transaction.atomic():
        transaction.on_commit(lambda: moments.append(time.time()))  # called before the callback that queues
        Stamp.start()
    return moments[0]


if __name__ == "__main__":
    stamps.measure(enqueue)
