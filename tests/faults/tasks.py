"""Tasks whose executions are counted outside of everything that the faults strike: in files."""

import asyncio
import json
import multiprocessing
import os
import random
import time
from datetime import timedelta
from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User

from taskapi.exceptions import TaskError
from taskapi.params import FloatParameter, IntParameter, StringParameter
from taskapi.tasks import Task

LOOK = 0.01  # seconds between two looks at a gate
PATIENCE = 300.0  # seconds after which a task gives a gate up, so that no thread outlives its test by much


class Recorded(Task):
    """A task that leaves a line in its run's file at each turn: what, in which attempt, by which process, when.

    `worker` is the worker that executes it, which is another process where the run has one of its own; `taken` when
    that worker took the run up, a moment before such a process is there.
    """

    worker = None

    def note(self, what, pid=None):
        isolated = multiprocessing.current_process().name == "taskapi-run"
        if self.worker is None:  # as it was at first: orphans get another parent
            self.worker = os.getppid() if isolated else os.getpid()
        line = {"what": what, "attempt": self.info.attempt, "pid": pid or os.getpid(), "at": time.time()}
        line |= {"worker": self.worker, "isolated": isolated, "taken": self.info.started.timestamp()}
        with Path(settings.FAULTS_JOURNAL, str(self.info.uuid)).open("a") as journal:
            journal.write(json.dumps(line) + "\n")

    def until_open(self, gate):
        """Yield until the gate, a file, is there."""
        deadline = time.monotonic() + PATIENCE
        while not Path(gate).exists():
            if time.monotonic() > deadline:
                raise TaskError("Nobody opened the gate.")
            yield


class Hold(Recorded):
    """Hear nothing while the gate is closed: no progress call, so that nothing can interrupt it."""

    name = "hold"
    inputs = {"gate": StringParameter()}
    outputs = {"attempt": IntParameter()}
    max_attempts = 2

    def run(self, gate):
        self.note("began")
        self.add_message(f"held {self.info.attempt}")
        for _ in self.until_open(gate):
            time.sleep(LOOK)
        self.note("let go")
        self.add_message(f"let go {self.info.attempt}")
        self.note("ended")
        return self.info.attempt


class Deaf(Hold):
    """Make no progress call at all."""

    name = "deaf"

    def run(self, gate):
        self.note("began")
        for _ in self.until_open(gate):
            time.sleep(LOOK)
        return self.info.attempt


class Precious(Hold):
    """A task that may be executed once only."""

    name = "precious"
    max_attempts = 1


class Spent(Hold):
    """Have all attempts but the last behind it."""

    name = "spent"
    retry_on = (ConnectionError,)
    retry_delay = 0.1

    def run(self, gate):
        if self.info.attempt < self.max_attempts:
            self.note("began")
            self.add_message("failed")
            raise ConnectionError("not yet")
        return super().run(gate)


class New(Hold):
    """A task that a worker of an older deploy does not know."""

    name = "new"


class AsyncHold(Hold):
    name = "async_hold"

    async def run(self, gate):
        self.note("began")
        self.add_message(f"held {self.info.attempt}")
        try:
            for _ in self.until_open(gate):
                await asyncio.sleep(LOOK)
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        self.note("ended")
        return self.info.attempt


class AsyncDeaf(AsyncHold):
    """Ignore being cancelled."""

    name = "async_deaf"

    async def run(self, gate):
        self.note("began")
        for _ in self.until_open(gate):
            try:
                await asyncio.sleep(LOOK)
            except asyncio.CancelledError:
                self.note("cancelled")
        self.note("ended")
        return self.info.attempt


class Loop(Recorded):
    """Make progress until the gate opens: each call may interrupt it."""

    name = "loop"
    inputs = {"gate": StringParameter()}
    outputs = {"attempt": IntParameter()}

    def run(self, gate):
        self.note("began")
        try:
            for _ in self.track(self.until_open(gate)):
                time.sleep(LOOK)
        except BaseException as error:
            self.note(type(error).__name__)
            raise
        self.note("ended")
        return self.info.attempt


class OwnHold(Hold):
    """As the others, in a queue of its own."""

    name = "own_hold"
    queue = "own"


class OwnAsyncHold(AsyncHold):
    name = "own_async_hold"
    queue = "own"


class OwnLoop(Loop):
    name = "own_loop"
    queue = "own"


class Slow(Recorded):
    """Take longer than it may."""

    name = "slow"
    timeout = 0.5

    def run(self):
        self.note("began")
        while True:
            self.inc_progress()
            time.sleep(LOOK)


class AsyncSlow(Slow):
    name = "async_slow"

    async def run(self):
        self.note("began")
        await asyncio.sleep(PATIENCE)


class Flaky(Recorded):
    """Raise in the first `failures` attempts."""

    name = "flaky"
    inputs = {"failures": IntParameter()}
    outputs = {"attempt": IntParameter()}
    retry_on = (ConnectionError,)
    retry_delay = 0.5

    def run(self, failures):
        self.note("began")
        self.add_message(self.info.attempt)
        if self.info.attempt <= failures:
            raise ConnectionError("not yet")
        return self.info.attempt


class Burst(Recorded):
    """Say the numbers up to `n`, each in a report of its own as far as the event interval lets it."""

    name = "burst"
    inputs = {"n": IntParameter(), "pause": FloatParameter(default=0)}

    def run(self, n, pause):
        self.note("began")
        self.set_target(n)
        for number in range(n):
            self.add_message(number)
            self.set_progress(number + 1)
            time.sleep(pause)


class AsyncQuery(Recorded):
    """Ask the database something, on the event loop."""

    name = "async_query"
    outputs = {"users": IntParameter()}

    async def run(self):
        self.note("began")
        return await User.objects.acount()


class HalfWay(Recorded):
    """Say how far it came, do something else until that must have been reported, and end with no more to say."""

    name = "half_way"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.note("began")
        for _ in self.until_open(gate):
            time.sleep(LOOK)
        self.set_target(100)
        self.set_progress(50)
        time.sleep(0.2)


class Brief(Recorded):
    """Kept for a moment after its end."""

    name = "brief"
    retain = timedelta(seconds=0.1)

    def run(self):
        self.note("began")
        self.add_message("soon forgotten")


class Work(Recorded):
    """What the storm runs: messages that tell their attempt, and progress, over `seconds`."""

    name = "work"
    inputs = {"steps": IntParameter(), "seconds": FloatParameter(), "failures": IntParameter(default=0)}
    outputs = {"attempt": IntParameter(), "steps": IntParameter()}
    max_attempts = 4

    def steps_to_do(self, steps, seconds, filler=0):
        """Yield how long each step takes; `filler` is how many characters each message has beside its numbers."""
        self.note("began")
        self.set_target(steps)
        for step in range(steps):
            yield random.uniform(0, 2 * seconds / steps)  # noqa: S311 - no secret
            if step % 3 == 0:
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
    """Fail before the last step, in the first `failures` attempts."""

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


# What the storm runs beside, of the kinds that can be left out: see tests/faults/kinds.py


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
    """Say, and give, more than a frame may hold."""

    name = "large_work"
    inputs = Work.inputs | {"filler": IntParameter(), "blob": IntParameter()}
    outputs = Work.outputs | {"blob": StringParameter()}

    def run(self, steps, seconds, failures, filler, blob):
        for pause in self.steps_to_do(steps, seconds, filler):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps, "blob": "x" * blob}


class TalkativeWork(Work):
    """Say much, though no more at once than a frame may hold."""

    name = "talkative_work"
    inputs = Work.inputs | {"filler": IntParameter()}

    def run(self, steps, seconds, failures, filler):
        for pause in self.steps_to_do(steps, seconds, filler):
            time.sleep(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class BilledWork(Work):
    """Kept for a moment after its end, unless somebody writes a bill for it."""

    name = "billed_work"
    retain = 3


class FleetingWork(Work):
    """Kept for a moment after its end."""

    name = "fleeting_work"
    retain = 0.5


class ThreadedWork(Work):
    """Work in threads of the event loop."""

    name = "threaded_work"

    async def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            await asyncio.to_thread(time.sleep, pause)
        return {"attempt": self.info.attempt, "steps": steps}


class SensitiveWork(Work):
    """Work in the thread that Django's async code calls its sync code in."""

    name = "sensitive_work"

    async def run(self, steps, seconds, failures):
        for pause in self.steps_to_do(steps, seconds):
            await sync_to_async(time.sleep)(pause)
        return {"attempt": self.info.attempt, "steps": steps}


class CrowdedWork(Work):
    """Keep more threads busy than the event loop has, and Django's one, until the gate opens."""

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
