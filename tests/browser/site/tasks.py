"""Tasks that last until a test lets them end, and say much meanwhile."""

import asyncio
import time
from pathlib import Path

from taskapi.exceptions import TaskError
from taskapi.params import FloatParameter, IntParameter, StringParameter
from taskapi.tasks import Task

PATIENCE = 120.0  # seconds after which a task gives its gate up, so that it does not outlive its test by much


class Talk(Task):
    """Say number after number until the gate, a file, is there."""

    name = "talk"
    inputs = {"gate": StringParameter(), "pause": FloatParameter(default=0.1)}  # seconds between two numbers
    outputs = {"said": IntParameter()}

    def numbers(self, gate):
        self.set_target(1_000)
        deadline = time.monotonic() + PATIENCE
        number = 0
        while not Path(gate).exists():
            if time.monotonic() > deadline:
                raise TaskError("Nobody opened the gate.")
            number += 1
            self.add_message(number)
            self.set_progress(number)
            yield number

    def run(self, gate, pause):
        said = 0
        for number in self.numbers(gate):
            said = number
            time.sleep(pause)
        return said


class AsyncTalk(Talk):
    name = "async_talk"

    async def run(self, gate, pause):
        said = 0
        for number in self.numbers(gate):
            said = number
            await asyncio.sleep(pause)
        return said


class Unserved(Talk):
    """Wait for ever, on a queue from which no worker takes runs."""

    name = "unserved"
    queue = "nobody"


class Mark(Task):
    """Add a line to a file: how often it was executed can be seen when no page is left to hear of it."""

    name = "mark"
    inputs = {"file": StringParameter(), "ballast": StringParameter(default="", max_length=1_000_000)}

    def run(self, file, ballast):
        with Path(file).open("a") as marks:
            marks.write(f"{self.info.uuid}\n")


class Chatter(Task):
    """Say much at once."""

    name = "chatter"
    inputs = {"count": IntParameter()}

    def run(self, count):
        for number in range(count):
            self.add_message(number)
