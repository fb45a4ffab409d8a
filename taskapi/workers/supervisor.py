"""Several worker processes under one parent, which starts a lost one again and ends with all of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import django

from taskapi.workers.engine import Worker, log_to_terminal

logger = logging.getLogger(__name__)

RESTART_PAUSE = 1.0  # seconds: a process that cannot start must not keep the machine busy

# A fresh interpreter for each: nothing is shared with the parent, and every platform has it.
_processes = multiprocessing.get_context("spawn")


def _work(options: dict[str, Any]) -> None:
    django.setup()
    log_to_terminal()
    Worker(**options).run()


class Supervisor:
    """`processes` workers with the same options."""

    def __init__(self, processes: int, options: dict[str, Any]) -> None:
        self.processes = processes
        self.options = options
        self._stopping = False
        self._children: list[BaseProcess] = []

    def run(self) -> None:
        """Return when every worker has ended: after SIGTERM or SIGINT, or of itself where they work in a burst."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        self._children = [self._start() for _ in range(self.processes)]
        while self._children:
            wait([child.sentinel for child in self._children])
            for child in [child for child in self._children if child.exitcode is not None]:
                self._children.remove(child)
                if child.exitcode and not self._stopping:
                    logger.error("Worker %s ended with %s; starting another.", child.pid, child.exitcode)
                    time.sleep(RESTART_PAUSE)
                    self._children.append(self._start())

    def _start(self) -> BaseProcess:
        child = _processes.Process(target=_work, args=(self.options,), name="taskworker")
        child.start()
        return child

    def _stop(self, signum: int, frame: object) -> None:
        self._stopping = True
        for child in self._children:
            if child.pid is not None and child.exitcode is None:
                os.kill(child.pid, signal.SIGTERM)
