"""What the processes that run tasks have in common: how they are made, what they say, how they end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

from django.db import connections

#: A fresh interpreter for each: nothing is shared with the parent, its threads least of all, and every platform has it.
fresh = multiprocessing.get_context("spawn")

#: Seconds in which a process ends whose work is done; longer than the process of a run has for its own end.
MOMENT = 2.5

#: What a worker handles in its own way, and how a process is born with it.
SIGNALS: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGUSR1: signal.SIG_DFL,
}
_inherited: list[Any] = []  # connections of a parent, kept from being closed


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
    for child in multiprocessing.active_children():  # as Python's own exit does
        if child.daemon:
            child.terminate()
    logging.shutdown()
    os._exit(status)


def end_in_a_moment(has_ended: Callable[[], bool] = lambda: True) -> None:
    """Have the process end although a thread of a task goes on; what `atexit` knows has its time all the same.

    Python waits at its exit for each thread and each child that is no daemon, and asyncio, as it closes a loop, for
    what a task has left there. `has_ended` says whether that is over.
    """

    def watch() -> None:
        time.sleep(MOMENT)
        main = threading.main_thread()
        threads = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
        if threads or multiprocessing.active_children() or not has_ended():
            leave()

    threading.Thread(target=watch, name="taskapi-end", daemon=True).start()


@cache
def free_forked_children() -> None:
    """From now on, whatever this process forks begins as a program does.

    A child would inherit asyncio's handlers, which do nothing there, and its wake-up descriptor: a signal to the
    child would reach the parent. And it would share the sockets of its parent's connections to databases.
    """
    blocked = threading.local()

    def before() -> None:  # a signal that comes before the child is free waits until it is
        blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    def after_in_child() -> None:
        signal.set_wakeup_fd(-1)
        for signum, handler in SIGNALS.items():
            signal.signal(signum, handler)
        for connection in connections.all(initialized_only=True):
            _inherited.append(connection)  # closing it would end the session of the parent
            del connections[connection.alias]
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)
