"""Where a worker process under a supervisor begins: in a fresh interpreter, which has loaded no app yet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

import django

from taskapi.workers.processes import log_to_terminal


def main(options: dict[str, Any]) -> None:
    """Work until the supervisor ends, or says so."""
    # Ctrl-C reaches every process of a terminal: the supervisor gets it, and tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    django.setup()
    from taskapi.workers.worker import Worker  # needs the apps

    log_to_terminal()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Worker(**options).run()


def _end_with_parent() -> None:
    """Stop as on SIGTERM when the supervisor is gone: nobody else would stop this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
