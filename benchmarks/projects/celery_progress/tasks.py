import celery_progress.websockets.tasks  # noqa: F401 - it tells followers the end of a task
from celery import shared_task
from celery_progress.websockets.backend import WebSocketProgressRecorder

from benchmarks.projects import pacing, stamps


@shared_task(name="sum")
def sum_(numbers):
    return sum(numbers)


@shared_task(bind=True)
def pace(self, calls):
    """Count to `calls` by single calls, and return how long the loop took."""
    recorder = WebSocketProgressRecorder(self)
    return pacing.seconds_for(calls, lambda number: recorder.set_progress(number, calls))


@shared_task(bind=True)
def tell(self, gate, seconds, progress, messages):
    """Make progress at a steady pace; this stack has no messages."""
    recorder = WebSocketProgressRecorder(self)
    opened = pacing.opened(gate)
    for _ in pacing.ticks(seconds, progress):
        recorder.set_progress(pacing.since(opened), round(seconds * 1e6))
    return pacing.since(opened)


@shared_task
def compute(seconds):
    return pacing.compute(seconds)


@shared_task
def stamp():
    stamps.leave()


BY_NAME = {"sum": sum_, "pace": pace, "tell": tell, "compute": compute}
