"""A task that kills the process that executes it."""

import os
import signal

from tests.faults.tasks import Recorded


class Deadly(Recorded):
    """Kill the process, as the kernel does when memory runs out."""

    name = "deadly"

    def run(self):
        self.note("began")
        os.kill(os.getpid(), signal.SIGKILL)
