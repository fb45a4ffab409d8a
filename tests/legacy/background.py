"""The tasks of the 1.x documentation."""

import os
from pathlib import Path
from time import sleep

from taskapi.params import IntParameter, ListParameter, NumberParameter, StringParameter
from taskapi.tasks import Task


class SumNumbers(Task):
    name = "sum"

    inputs = {
        "numbers": ListParameter(NumberParameter()),
    }

    outputs = {
        "sum": NumberParameter(),
    }

    def run(self, numbers):
        return sum(numbers)


class WaitTask(Task):
    name = "wait"

    inputs = {
        "seconds": IntParameter(required=False),
    }

    def run(self, seconds=10):
        self.set_target(10)
        self.set_progress(0)

        for _ in range(seconds):
            sleep(1)
            self.inc_progress(1)


class MyTask(Task):
    name = "my-task"

    inputs = {
        "name": StringParameter(),
        "count": IntParameter(required=False),
    }

    outputs = {"output": StringParameter()}

    def run(self, name, count=5):
        # Do stuff here
        return "Some output"


# The documentation has only parts of the following tasks; the names are ours.


class Items(Task):
    """`inputs` of "Parameters"."""

    name = "items"

    inputs = {
        "items": ListParameter(StringParameter()),
    }

    outputs = {"out": StringParameter()}

    def run(self, items):
        return ",".join(items)


class NiceToHave(Task):
    """`inputs` and `run` of "run() Method"; `required=True` is the default."""

    name = "nice-to-have"

    inputs = {
        "must_have": StringParameter(required=True),
        "nice_to_have": StringParameter(required=False),
    }

    outputs = {"got": ListParameter(StringParameter())}

    def run(self, must_have, nice_to_have=None):
        return [must_have, repr(nice_to_have)]


class OneOutput(Task):
    name = "one-output"

    outputs = {
        "out": StringParameter(),
    }

    def run(self):
        return "Foo"


class TwoOutputs(Task):
    name = "two-outputs"

    outputs = {
        "out": StringParameter(),
        "count": IntParameter(),
    }

    def run(self):
        return {
            "out": "Foo",
            "count": 5,
        }


LINES = Path(__file__).with_name("lines.txt")


def process_line(line):
    pass


class ProcessLines(Task):
    """`run` of "Progress & Messages"; binary, because Python 3 has no `tell()` in a loop over lines of text."""

    name = "lines"

    def run(self):
        with LINES.open("rb") as f:
            f.seek(0, os.SEEK_END)
            self.set_target(f.tell())
            f.seek(0, os.SEEK_SET)

            for line in f:
                process_line(line)
                self.set_progress(f.tell())
