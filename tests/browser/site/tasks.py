"""Tasks that run until a test lets them end, and add messages meanwhile."""

import asyncio
import hashlib
import time
from pathlib import Path

from taskapi.exceptions import TaskError
from taskapi.params import FileParameter, FloatParameter, IntParameter, StringParameter
from taskapi.tasks import Task

PATIENCE = 120.0  # seconds that a task waits for its gate, so that it does not outlive its test by much


class Talk(Task):
    """Add number after number as a message, until the gate, a file, exists."""

    name = "talk"
    inputs = {"gate": StringParameter(), "pause": FloatParameter(default=0.1)}  # seconds between two numbers
    outputs = {"said": IntParameter()}

    def numbers(self, gate):
        self.set_target(1_000)
        deadline = time.monotonic() + PATIENCE
        number = 0
        while not Path(gate).exists():
            if time.monotonic() > deadline:
                raise TaskError(f"Nobody opened the gate {gate} within {PATIENCE:.0f} s.")
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
    """Stay pending: no worker serves its queue."""

    name = "unserved"
    queue = "nobody"


class Mark(Task):
    """Add a line to a file, so that a test can count executions without a page."""

    name = "mark"
    inputs = {"file": StringParameter(), "ballast": StringParameter(default="", max_length=1_000_000)}

    def run(self, file, ballast):
        with Path(file).open("a") as marks:
            marks.write(f"{self.info.uuid}\n")


class Chatter(Task):
    """Add many messages at once."""

    name = "chatter"
    inputs = {"count": IntParameter()}

    def run(self, count):
        for number in range(count):
            self.add_message(number)


class ImportPeople(Task):
    """Count the bytes of a file: the task of a sample in docs/javascript.md."""

    name = "import-people"
    inputs = {"file": FileParameter()}
    outputs = {"imported": IntParameter(), "digest": StringParameter()}

    def run(self, file):
        self.set_target(file.size)
        digest = hashlib.sha256()
        for part in file.chunks():
            digest.update(part)
            self.inc_progress(len(part))
        return {"imported": file.size, "digest": digest.hexdigest()}
