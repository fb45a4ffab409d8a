"""Where the process of a run begins: in a fresh interpreter, which has loaded no app yet."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

import django

from taskapi.workers.processes import free_forked_children

BEGUN = "begun"  # sent when the task's first line is about to run
PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def main(connection: Connection, info: bytes, worker: int) -> None:
    """Execute the pickled run for the worker with this process id, which is at the other end of the connection."""
    # A process group of its own: it does not get Ctrl-C of the terminal, and what it starts is killed with it.
    os.setpgid(0, 0)
    # A service manager that stops a worker signals all of its processes. This one waits for its worker's word.
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    free_forked_children()
    _end_with(worker)
    django.setup()
    from taskapi.workers.isolation.child import execute  # needs the apps

    execute(connection, pickle.loads(info))  # noqa: S301 - it comes from its worker


def _end_with(worker: int) -> None:
    """Let the kernel end this process with its worker, also while a task holds the interpreter.

    On other systems than Linux it ends when it notices that the connection is closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != worker:  # the worker is gone already
            os._exit(1)
