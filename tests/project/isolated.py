"""Tasks with a process of their own. Some write its process id to a file, for the test."""

import asyncio
import atexit
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from taskapi.exceptions import Interrupted, TaskError
from taskapi.params import IntParameter, StringParameter
from taskapi.tasks import Task


class Alone(Task):
    """Make progress, and return the process id."""

    name = "alone"
    inputs = {"n": IntParameter(default=3)}
    outputs = {"pid": IntParameter()}
    isolation = "process"

    def run(self, n):
        for number in self.track(range(n)):
            self.add_message({"number": number, "attempt": self.info.attempt})
        return os.getpid()


class AsyncAlone(Alone):
    name = "async_alone"

    async def run(self, n):
        for number in self.track(range(n)):
            self.add_message({"number": number, "attempt": self.info.attempt})
            await asyncio.sleep(0)
        return os.getpid()


class Whereabouts(Task):
    """Return the process id, without a process of its own."""

    name = "whereabouts"
    outputs = {"pid": IntParameter()}

    def run(self):
        return os.getpid()


class AloneForUser(Alone):
    """Return the name of the run's user."""

    name = "alone_for_user"
    inputs = {}
    outputs = {"user": StringParameter(required=False)}

    async def run(self):
        return self.info.user and self.info.user.username


class AloneFails(Alone):
    """Fail in one of several ways."""

    name = "alone_fails"
    inputs = {"how": StringParameter()}
    outputs = {"n": IntParameter()}
    retry_on = (ConnectionError,)
    retry_delay = 100

    def run(self, how):
        self.add_message("before")
        match how:
            case "task_error":
                raise TaskError("There is nothing to be done.")
            case "exception":
                raise RuntimeError("the password is swordfish")
            case "retry_on":
                raise ConnectionError("nobody there")
            case "sys.exit":
                sys.exit(3)
            case "os._exit":
                os._exit(3)
            case "invalid_outputs":
                return "many"
        raise AssertionError(how)


class LateParameter(IntParameter):
    """Converts more slowly than the task's timeout."""

    def to_python(self, value):
        time.sleep(1)
        return super().to_python(value)


class AloneLate(Alone):
    """Return at once, after a slow start of the process and slow inputs."""

    name = "alone_late"
    inputs = {"n": LateParameter()}
    timeout = 0.4

    def run(self, n):
        self.add_message("begun")
        return os.getpid()


class AsyncAloneLate(AloneLate):
    name = "async_alone_late"

    async def run(self, n):
        self.add_message("begun")
        return os.getpid()


class AloneLingers(Alone):
    """Return, and leave a process that does not end."""

    name = "alone_lingers"

    def run(self, n):
        atexit.register(time.sleep, 600)
        return os.getpid()


class AlonePatient(Alone):
    """Work until it is interrupted, then clean up. Its process id is in a file."""

    name = "alone_patient"
    inputs = {"pid_file": StringParameter()}
    outputs = {}

    def run(self, pid_file):
        self.add_message("begun")
        leave_pid(pid_file)
        try:
            while True:
                time.sleep(0.001)  # a piece of the work
                self.inc_progress()
        except Interrupted:
            self.add_message("cleaned up")
            raise


class AsyncAlonePatient(AlonePatient):
    name = "async_alone_patient"

    async def run(self, pid_file):
        self.add_message("begun")
        leave_pid(pid_file)
        try:
            await asyncio.Event().wait()
        finally:
            self.add_message("cleaned up")


class Stuck(AlonePatient):
    """Hold the interpreter for ever: no other thread runs, and no signal is handled."""

    name = "stuck"

    def run(self, pid_file):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        leave_pid(pid_file, child.pid)
        re.match(r"(a+)+$", "a" * 64 + "b")  # 2 ** 64 steps


class StuckForAWhile(Stuck):
    name = "stuck_for_a_while"
    timeout = 0.5


def leave_pid(path, *more):
    """Write the process ids in one step: a reader of the file sees all of them."""
    written = Path(f"{path}.new")
    written.write_text(" ".join(map(str, (os.getpid(), *more))))
    written.rename(path)
