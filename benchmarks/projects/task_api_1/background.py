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
    """Count to `calls` by single calls, and say how long the loop took."""

    name = "pace"
    inputs = {"calls": IntParameter()}
    outputs = {"seconds": FloatParameter()}

    def run(self, calls):
        return pacing.seconds_for(calls, self.set_progress)


class Stamp(Task):
    """Leave the moment at which it began."""

    name = "stamp"

    def run(self):
        stamps.leave()
