"""Where a worker process under a supervisor begins: in a fresh interpreter, which has loaded no app yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any, NamedTuple

import django

from taskapi.workers import reloading
from taskapi.workers.processes import log_to_terminal


class Surroundings(NamedTuple):
    """What a worker process is told beside the options of its worker."""

    terminal: dict[str, Any] = {}  # the arguments of `log_to_terminal`
    reload: bool = False  # end when the code changes
    checks: bool = True  # if it reloads: make Django's system checks before it begins


def main(options: dict[str, Any], surroundings: Surroundings = Surroundings()) -> None:  # noqa: B008 - immutable
    """Work until the supervisor ends, or says so."""
    # Ctrl-C reaches every process of a terminal: the supervisor gets it, and tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if surroundings.reload:
        reloading.main(options, surroundings.terminal, surroundings.checks)
    else:
        _work(options, surroundings.terminal)


def _work(options: dict[str, Any], terminal: dict[str, Any]) -> None:
    django.setup()
    from taskapi.workers.worker import Worker  # needs the apps

    log_to_terminal(**terminal)
    Worker(**options).run()


def _end_with_parent() -> None:
    """Stop as on SIGTERM when the supervisor is gone: nobody else would stop this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
