"""Tasks with a process of their own: faults strike this process, or its worker."""

import re
import subprocess
import sys
import time

from taskapi.params import IntParameter, StringParameter
from tests.faults.tasks import LOOK, Recorded
from tests.faults.work import Work


class Stuck(Recorded):
    """Hold the interpreter for ever in the first attempt: no other thread runs, and no signal is handled."""

    name = "stuck"
    outputs = {"attempt": IntParameter()}
    isolation = "process"

    def run(self):
        self.add_message(f"attempt {self.info.attempt}")
        if self.info.attempt == 1:
            while self.info.message_count == 0:  # wait until it is recorded: afterwards nothing runs here
                time.sleep(LOOK)
                self.info.refresh_from_db()
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            self.note("child", pid=child.pid)
            self.note("began")
            re.match(r"(a+)+$", "a" * 64 + "b")  # 2 ** 64 steps
        else:
            self.note("began")
        return self.info.attempt


class Alone(Recorded):
    """Make progress until the gate opens."""

    name = "alone"
    inputs = {"gate": StringParameter()}
    outputs = {"attempt": IntParameter()}
    isolation = "process"

    def run(self, gate):
        self.note("began")
        try:
            for step, _ in enumerate(self.track(self.until_open(gate))):
                self.add_message([self.info.attempt, step])
                time.sleep(LOOK)
        except BaseException as error:
            self.note(type(error).__name__)
            raise
        self.note("ended")
        return self.info.attempt


class IsolatedWork(Work):
    """The work of the storm, in a process of its own."""

    name = "isolated_work"
    isolation = "process"
