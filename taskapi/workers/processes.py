"""What the processes that run tasks have in common: how they are made, where they log, how they end."""

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

from taskapi.workers.terminal import RUN_LINES, LineFormatter, TerminalFormatter, wants_colour

LEVELS = {0: logging.WARNING, 1: logging.INFO}  # of our log, by the verbosity of manage.py

#: A fresh interpreter for each: it shares nothing with the parent, and every platform has it.
fresh = multiprocessing.get_context("spawn")

#: Seconds for a process to end whose work is done; more than isolation.parent.KILL_AFTER.
EXIT_LIMIT = 2.5

#: The signals that a worker handles in its own way, and their handlers in a new process.
SIGNALS: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGUSR1: signal.SIG_DFL,
}
_inherited: list[Any] = []  # connections of the parent, which must not be closed here


def log_to_terminal(verbosity: int = 1, colour: bool | None = None) -> None:
    """Log what the process does to the terminal, if the project's LOGGING does not configure it.

    `verbosity` is that of manage.py: 0 leaves out what goes well. `colour`: None if the terminal decides.
    """
    package = logging.getLogger("taskapi")
    if verbosity == 0:
        logging.getLogger(RUN_LINES).setLevel(logging.WARNING)
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(TerminalFormatter() if wants_colour(handler.stream, colour) else LineFormatter())
        package.addHandler(handler)
        package.setLevel(LEVELS.get(verbosity, logging.DEBUG))


def leave(status: int = 0) -> NoReturn:
    """End the process at once: Python would wait for threads that never end."""
    for child in multiprocessing.active_children():  # as Python's own exit does
        if child.daemon:
            child.terminate()
    logging.shutdown()
    os._exit(status)


def end_in_a_moment(has_ended: Callable[[], bool] = lambda: True, status: int = 0) -> None:
    """End the process in EXIT_LIMIT although a thread of a task goes on; until then, `atexit` handlers can run.

    At its exit, Python waits for each thread and each child that is not a daemon. When asyncio closes a loop, it waits
    for what tasks have left on it; `has_ended` says whether that is over.
    """

    def watch() -> None:
        time.sleep(EXIT_LIMIT)
        main = threading.main_thread()
        threads = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
        if threads or multiprocessing.active_children() or not has_ended():
            leave(status)

    threading.Thread(target=watch, name="taskapi-end", daemon=True).start()


@cache
def free_forked_children() -> None:
    """From now on, a process that is forked from this one begins as a program does.

    Otherwise it would inherit asyncio's signal handlers, which do nothing there, and its wake-up descriptor, so that a
    signal to the child would reach the parent. It would also share the sockets of the parent's database connections.
    """
    blocked = threading.local()

    def before() -> None:  # a signal that comes now waits until the child has its own handlers
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
