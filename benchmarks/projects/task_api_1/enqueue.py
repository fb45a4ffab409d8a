"""The time from just before Celery gets the task, after the row is saved, to the first line of `run`."""

import time

import django

from benchmarks.projects import stamps

django.setup()

from task_api import tasks  # noqa: E402 - after the setup
from task_api.backends.celery import CeleryBackend  # noqa: E402

from benchmarks.projects.task_api_1.background import Stamp  # noqa: E402


class Watched(CeleryBackend):
    def run_task(self, info, class_str):
        self.__class__.queued = time.time()
        super().run_task(info, class_str)


tasks.get_backend_cls = lambda: Watched


def enqueue() -> float:
    Stamp().start({})
    return Watched.queued


if __name__ == "__main__":
    stamps.measure(enqueue)
