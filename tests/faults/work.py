"""The tasks that the storm runs: each does steps of work, and says which."""

import asyncio
import random
import time

from asgiref.sync import sync_to_async

from taskapi.params import FloatParameter, IntParameter, StringParameter
from tests.faults.executions import MAX_ATTEMPTS, MESSAGE_EVERY
from tests.faults.tasks import LOOK, Recorded


class Work(Recorded):
    """Add messages that tell their attempt, and make progress, over `seconds`."""

    name = "work"
    inputs = {"steps": IntParameter(), "seconds": FloatParameter(), "failures": IntParameter(default=0)}
    outputs = {"attempt": IntParameter(), "steps": IntParameter()}
    max_attempts = MAX_ATTEMPTS

    def steps_to_do(self, steps, seconds, filler=0):
        """Yield the seconds of each step. Each message has `filler` characters beside its numbers."""
        self.note("began")
        self.set_target(steps)
        for step in range(steps):
            yield random.uniform(0, 2 * seconds / steps)  # noqa: S311 - no secret
            if step % MESSAGE_EVERY == 0:
                self.add_message([self.info.attempt, step, *(["x" * filler] if filler else [])])
            self.inc_progress()
        self.note("ended")

    def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class AsyncWork(Work):
    name = "async_work"

    async def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            await asyncio.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class FlakyWork(Work):
    """Raise in the first step of the first `failures` attempts."""

    name = "flaky_work"
    retry_on = (ConnectionError,)
    retry_delay = 0.2

    def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            time.sleep(pause)
            if self.info.attempt <= failures:
                self.note("raised")
                raise ConnectionError("not yet")
        return {"attempt": self.info.attempt, "steps": steps}


# The kinds that can be left out: see tests/faults/kinds.py


class GatedWork(Work):
    """Begin to work when the gate opens."""

    name = "gated_work"
    inputs = Work.inputs | {"gate": StringParameter()}

    def run(self, steps, seconds, failures, gate):
        to_do = self.steps_to_do(steps, seconds)
        first = next(to_do)
        for _ in self.until_open(gate):
            time.sleep(LOOK)
        for pause in (first, *to_do):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class LargeWork(Work):
    """Add messages and return outputs that are larger than a frame may be."""

    name = "large_work"
    inputs = Work.inputs | {"filler": IntParameter(), "blob": IntParameter()}
    outputs = Work.outputs | {"blob": StringParameter()}

    def run(self, steps, seconds, failures, filler, blob):
        for pause in self.steps_to_do(steps, seconds, filler):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps, "blob": "x" * blob}


class TalkativeWork(Work):
    """Add many messages, each of them small enough for a frame."""

    name = "talkative_work"
    inputs = Work.inputs | {"filler": IntParameter()}

    def run(self, steps, seconds, failures, filler):
        for pause in self.steps_to_do(steps, seconds, filler):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class BilledWork(Work):
    """Its run is kept for a moment after its end, or longer if a bill points to it."""

    name = "billed_work"
    retain = 3


class FleetingWork(Work):
    """Its run is kept for a moment after its end."""

    name = "fleeting_work"
    retain = 0.5


class ThreadedWork(Work):
    """Work in the threads of the event loop's default executor."""

    name = "threaded_work"

    async def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            await asyncio.to_thread(time.sleep, pause)
        return {"attempt": self.info.attempt, "steps": steps}


class SensitiveWork(Work):
    """Work in the one thread in which Django's async code calls its sync code."""

    name = "sensitive_work"

    async def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            await sync_to_async(time.sleep)(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class CrowdedWork(Work):
    """Keep all threads of the event loop busy, and Django's one, until the gate opens."""

    name = "crowded_work"
    inputs = Work.inputs | {"gate": StringParameter()}
    THREADS = 40

    async def run(self, steps, seconds, failures, gate):
        to_do = self.steps_to_do(steps, seconds)
        first = next(to_do)
        waiting = [asyncio.to_thread(self.wait_for, gate) for _ in range(self.THREADS)]
        await asyncio.gather(sync_to_async(self.wait_for)(gate), *waiting)
        for pause in (first, *to_do):
            await asyncio.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}

    def wait_for(self, gate):
        for _ in self.until_open(gate):
            time.sleep(LOOK)
