"""A gate: a task waits for it, in any process, until the test opens it."""

import os
from pathlib import Path


class Gate:
    """A named pipe: opening one end waits for the other end, so neither side polls or sleeps."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)  # the input of the task
        os.mkfifo(path)

    def open(self) -> None:
        """Wait until a task reads the gate, and let it go on."""
        with Path(self.path).open("wb"):
            pass
