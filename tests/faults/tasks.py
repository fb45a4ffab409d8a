"""Tasks that count their executions in files, which no fault strikes."""

import asyncio
import json
import multiprocessing
import os
import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User

from taskapi.exceptions import TaskError
from taskapi.params import FloatParameter, IntParameter, StringParameter
from taskapi.tasks import Task

LOOK = 0.01  # seconds between two looks at a gate
PATIENCE = 300.0  # seconds that a task waits for a gate, so that no thread outlives its test by much


class Recorded(Task):
    """A task that writes lines to the file of its run: what happened, in which attempt and process, and when.

    `worker` is the process id of the worker; `pid` differs from it if the run has a process of its own. `taken` is when
    the worker took the run up.
    """

    worker = None

    def note(self, what, pid=None):
        isolated = multiprocessing.current_process().name == "taskapi-run"
        if self.worker is None:  # kept from the first call: an orphan gets another parent
            self.worker = os.getppid() if isolated else os.getpid()
        line = {"what": what, "attempt": self.info.attempt, "pid": pid or os.getpid(), "at": time.time()}
        line |= {"worker": self.worker, "isolated": isolated, "taken": self.info.started.timestamp()}
        with Path(settings.FAULTS_JOURNAL, str(self.info.uuid)).open("a") as journal:
            journal.write(json.dumps(line) + "\n")

    def until_open(self, gate):
        """Yield until the gate, a file, exists."""
        deadline = time.monotonic() + PATIENCE
        while not Path(gate).exists():
            if time.monotonic() > deadline:
                raise TaskError(f"Nobody opened the gate {gate} within {PATIENCE:.0f} s.")
            yield


class Hold(Recorded):
    """Make no progress call while the gate is closed, so that nothing can interrupt it."""

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
    """A task that may be executed only once."""

    name = "precious"
    max_attempts = 1


class Spent(Hold):
    """Raise in all attempts but the last, which holds."""

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
    """Make progress until the gate opens; each progress call may interrupt it."""

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
    """The same in a queue of its own."""

    name = "own_hold"
    queue = "own"


class OwnAsyncHold(AsyncHold):
    name = "own_async_hold"
    queue = "own"


class OwnLoop(Loop):
    name = "own_loop"
    queue = "own"


class Slow(Recorded):
    """Take longer than its timeout."""

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
    """Add the numbers up to `n` as messages, each in its own report as far as the event interval allows it."""

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
    """Query the database on the event loop."""

    name = "async_query"
    outputs = {"users": IntParameter()}

    async def run(self):
        self.note("began")
        return await User.objects.acount()


class HalfWay(Recorded):
    """Make progress, wait until it must have been reported, and end without another word."""

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
    """Its run is kept for a moment after its end."""

    name = "brief"
    retain = timedelta(seconds=0.1)

    def run(self):
        self.note("began")
        self.add_message("soon forgotten")
