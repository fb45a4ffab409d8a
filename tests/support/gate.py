"""A gate that a task waits at, in whatever process it runs, until the test opens it."""

import os
from pathlib import Path


class Gate:
    """A named pipe: opening one end waits for the other, so neither side ever polls or sleeps."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)  # what a task is given as input
        os.mkfifo(path)

    def open(self) -> None:
        """Let go the task that reads here; waits until it has come this far."""
        with Path(self.path).open("wb"):
            pass
