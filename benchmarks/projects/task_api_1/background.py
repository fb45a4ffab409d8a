from task_api.params import FloatParameter, IntParameter, ListParameter, NumberParameter
from task_api.tasks import Task

from benchmarks.projects import pacing, stamps


class Sum(Task):
    name = "sum"
    inputs = {"numbers": ListParameter(NumberParameter())}
    outputs = {"sum": NumberParameter()}

    def run(self, numbers):
        return sum(numbers)


class Pace(Task):
    """Count to `calls` by single calls, and return how long the loop took."""

    name = "pace"
    inputs = {"calls": IntParameter()}
    outputs = {"seconds": FloatParameter()}

    def run(self, calls):
        return pacing.seconds_for(calls, self.set_progress)


class Compute(Task):
    """Compute for so many seconds."""

    name = "compute"
    inputs = {"seconds": FloatParameter()}
    outputs = {"rounds": IntParameter()}

    def run(self, seconds):
        return pacing.compute(seconds)


class Stamp(Task):
    """Write the moment of its first line to Redis."""

    name = "stamp"

    def run(self):
        stamps.leave()
