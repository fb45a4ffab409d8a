"""What the processes that run tasks have in common: how they are made, what they say, how they end."""

from __future__ import annotations

import logging
import multiprocessing
import os
from typing import NoReturn

#: A fresh interpreter for each: nothing is shared with the parent, its threads least of all, and every platform has it.
fresh = multiprocessing.get_context("spawn")


def log_to_terminal() -> None:
    """Say what the process does, in a project whose LOGGING says nothing of it."""
    package = logging.getLogger("taskapi")
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


def leave(status: int = 0) -> NoReturn:
    """End the process at once: Python would wait for a thread that never ends, as long as that takes."""
    logging.shutdown()
    os._exit(status)
