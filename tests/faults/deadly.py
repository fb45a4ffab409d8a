"""A task that is the end of the process that executes it."""

import os
import signal

from tests.faults.tasks import Recorded


class Deadly(Recorded):
    """As one that takes more memory than there is: whatever executes it is killed."""

    name = "deadly"

    def run(self):
        self.note("began")
        os.kill(os.getpid(), signal.SIGKILL)
