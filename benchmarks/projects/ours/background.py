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


class Tell(Task):
    """Make progress and add messages at a steady pace; each tells the time since the gate opened."""

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
    """Write the moment of its first line to Redis."""

    name = "stamp"

    def run(self):
        stamps.leave()


class Say(Task):
    """Add the numbers up to `count` as messages."""

    name = "say"
    inputs = {"count": IntParameter()}

    def run(self, count):
        for number in range(count):
            self.add_message(number)
