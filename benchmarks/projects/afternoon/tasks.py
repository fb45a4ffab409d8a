"""Tasks are plain functions, so that they can use the ORM; they report to their first argument."""

from benchmarks.projects import pacing, stamps


def add(report, numbers):
    return sum(numbers)


def pace(report, calls):
    """Count to `calls` by single calls, and return how long the loop took."""
    return pacing.seconds_for(calls, report.progress)


def tell(report, gate, seconds, progress, messages):
    """Make progress at a steady pace; this stack has no messages."""
    opened = pacing.opened(gate)
    for _ in pacing.ticks(seconds, progress):
        report.progress(pacing.since(opened))
    return pacing.since(opened)


def compute(report, seconds):
    return pacing.compute(seconds)


def stamp(report):
    stamps.leave()


TASKS = {"sum": add, "pace": pace, "tell": tell, "compute": compute, "stamp": stamp}
