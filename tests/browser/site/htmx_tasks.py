"""Tasks for the pages with htmx."""

from pathlib import Path
from time import sleep

from taskapi.exceptions import TaskError
from taskapi.params import BooleanParameter, IntParameter, JSONParameter, ListParameter, StringParameter
from taskapi.tasks import Task


class Steps(Task):
    """Before each step, add the messages and wait at a gate, a named pipe; then return or fail."""

    name = "steps"
    inputs = {
        "gates": ListParameter(),
        "messages": ListParameter(default=[]),
        "with_target": BooleanParameter(default=True),
        "error": StringParameter(default=""),
        "result": JSONParameter(default=None),
    }
    outputs = {"result": JSONParameter()}

    def run(self, gates, messages, with_target, error, result):
        if with_target:
            self.set_target(len(gates))
        for message in messages:
            self.add_message(message)
        for number, gate in enumerate(gates, 1):
            Path(gate).read_bytes()
            self.set_progress(number)
            self.add_message(f"step {number}")
        if error:
            raise TaskError(error)
        return result


class Report(Task):
    """Its template loads a view once the run has finished."""

    name = "report"
    inputs = {"lines": IntParameter()}

    def run(self, lines):
        for number in self.track(range(lines)):
            self.add_message(number)


class Queries(Task):
    """Its template queries the database, which a stream does not allow."""

    name = "queries"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        while not Path(gate).exists():
            self.check_cancelled()
            sleep(0.01)
