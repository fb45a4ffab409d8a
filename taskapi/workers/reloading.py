"""A worker process that ends when the code changes, so that its supervisor starts another with the new code.

The process watches its own modules, as Django's `runserver` does, by the same `django.utils.autoreload`. There the
watch has the main thread and the server another one. Here it is the other way round, because a worker handles signals,
and hands back its runs before it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import django
from django.core.management.base import BaseCommand, SystemCheckError
from django.utils import autoreload

from taskapi.workers.processes import log_to_terminal

logger = logging.getLogger(__name__)

RELOAD_GRACE = 2.0  # seconds at most for running tasks after a change: a developer waits for the new code


def main(options: dict[str, Any], terminal: dict[str, Any], checks: bool) -> None:
    """Work until the code changes. If it cannot be loaded, say why, and wait until it changes."""
    try:
        autoreload.check_errors(_load)(checks)  # which has the file of an error watched, although it is no module yet
        log_to_terminal(**terminal)
        _work(options)
    except Exception as error:  # whatever the project's code raises: the next change may mend it
        log_to_terminal(**terminal)
        known = isinstance(error, SystemCheckError)  # it has a list of what to do; a traceback tells nothing more
        why = f"The worker cannot start: {error}" if known else "The worker cannot start."
        logger.error("%s It waits until a file changes.", why, exc_info=None if known else error)
        _wait()


def _load(checks: bool) -> None:
    django.setup()
    from taskapi.tasks import registry  # needs the apps

    registry.tasks()
    if checks:
        BaseCommand().check()


def _work(options: dict[str, Any]) -> None:
    from taskapi.workers.worker import Worker  # needs the apps

    worker = Worker(**options)

    def end() -> None:
        logger.info("Worker %d ends, and starts again: the code has changed.", os.getpid())
        worker.grace = min(worker.grace, RELOAD_GRACE)
        os.kill(os.getpid(), signal.SIGTERM)

    _watch(end)
    worker.run()


def _wait() -> None:
    """Wait for a change, or for a signal to end."""

    def leave(signum: int, frame: object) -> NoReturn:
        sys.exit(0)

    for signum in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, leave)
    changed = threading.Event()
    _watch(changed.set)
    changed.wait()


def _watch(on_change: Callable[[], object]) -> None:
    """Call the function, in a thread, when a file has changed that this process has loaded."""
    reloader = autoreload.get_reloader()

    def watch() -> None:
        with suppress(Exception):  # a receiver reads the settings, which may be what is broken
            autoreload.autoreload_started.send(sender=reloader)  # it has templates watched, or left out
        try:
            reloader.run_loop()
        except SystemExit:  # that is how it ends a process
            on_change()

    threading.Thread(target=watch, name="taskapi-reload", daemon=True).start()
