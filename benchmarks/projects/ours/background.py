from benchmarks.projects import pacing, stamps
from taskapi.params import FloatParameter, IntParameter, ListParameter, NumberParameter, StringParameter
from taskapi.tasks import Task


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


class Compute(Task):
    """Compute for so many seconds."""

    name = "compute"
    inputs = {"seconds": FloatParameter()}
    outputs = {"rounds": IntParameter()}

    def run(self, seconds):
        return pacing.compute(seconds)


class Tell(Task):
    """Make progress and say messages at a steady pace; each says how long after the gate's opening."""

    name = "tell"
    inputs = {
        "gate": StringParameter(),
        "seconds": FloatParameter(),
        "progress": IntParameter(),
        "messages": IntParameter(),
    }
    outputs = {"ended": IntParameter()}

    def run(self, gate, seconds, progress, messages):
        opened = pacing.opened(gate)
        for number in pacing.ticks(seconds, progress):
            self.set_progress(pacing.since(opened))
            if messages and number % (progress // messages) == 0:
                self.add_message(pacing.since(opened))
        return pacing.since(opened)


class Stamp(Task):
    """Leave the moment at which it began."""

    name = "stamp"

    def run(self):
        stamps.leave()


class Say(Task):
    """Say the numbers up to `count`."""

    name = "say"
    inputs = {"count": IntParameter()}

    def run(self, count):
        for number in range(count):
            self.add_message(number)
