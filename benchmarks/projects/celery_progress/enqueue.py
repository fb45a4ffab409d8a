"""The time from just before Celery gets the task to its first line."""

import time

import django

from benchmarks.projects import stamps

django.setup()

from benchmarks.projects.celery_progress.tasks import stamp  # noqa: E402 - after the setup


def enqueue() -> float:
    queued = time.time()
    stamp.delay()
    return queued


if __name__ == "__main__":
    stamps.measure(enqueue)
