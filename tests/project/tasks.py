"""The tasks that the integration tests run: each shows one thing that a task can do."""

import asyncio
import time
from pathlib import Path

from taskapi.exceptions import TaskError
from taskapi.params import FloatParameter, IntParameter, ListParameter, NumberParameter, StringParameter
from taskapi.tasks import Task


class Sum(Task):
    """Add numbers, as in the 1.x documentation."""

    name = "sum"
    inputs = {"numbers": ListParameter(NumberParameter())}
    outputs = {"sum": NumberParameter()}

    def run(self, numbers):
        return sum(numbers)


class AsyncSum(Sum):
    name = "async_sum"

    async def run(self, numbers):
        return sum(numbers)


class Count(Task):
    """Count to `n`, as fast as it goes."""

    name = "count"
    inputs = {"n": IntParameter()}
    outputs = {"counted": IntParameter()}

    def run(self, n):
        self.set_target(n)
        for _ in range(n):
            self.inc_progress()
        return n


class AsyncCount(Count):
    name = "async_count"

    async def run(self, n):
        self.set_target(n)
        for _ in range(n):
            self.inc_progress()
            await asyncio.sleep(0)
        return n


class Say(Task):
    """Say the numbers up to `n`."""

    name = "say"
    inputs = {"n": IntParameter()}

    def run(self, n):
        for number in range(n):
            self.add_message({"number": number})


class Hold(Task):
    """Wait until the test opens the gate (`tests.support.gate`), between two messages."""

    name = "hold"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.add_message("held")
        Path(gate).read_bytes()
        self.add_message("let go")


class AsyncHold(Hold):
    name = "async_hold"

    async def run(self, gate):
        self.add_message("held")
        await asyncio.to_thread(Path(gate).read_bytes)
        self.add_message("let go")


class Refuse(Task):
    """Fail with a sentence for the caller."""

    name = "refuse"
    inputs = {"message": StringParameter()}

    def run(self, message):
        raise TaskError(message)


class Crash(Task):
    """Fail with an exception whose text is nobody's business."""

    name = "crash"

    def run(self):
        raise RuntimeError("the password is swordfish")


class Stamp(Task):
    """Say when it began: what the benchmarks measure the way to a worker by."""

    name = "stamp"
    outputs = {"began": FloatParameter()}

    def run(self):
        return time.time()
