"""Several worker processes under one parent, which starts a lost one again and ends with all of them."""

from __future__ import annotations

import logging
import os
import signal
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from taskapi.processes import fresh
from taskapi.workers.process import work

logger = logging.getLogger(__name__)

RESTART_PAUSE = 1.0  # seconds: a process that cannot start must not keep the machine busy


class Supervisor:
    """`processes` workers with the same options."""

    def __init__(self, processes: int, options: dict[str, Any]) -> None:
        self.processes = processes
        self.options = options
        self._children: list[BaseProcess] = []
        self._stopping = False
        self._woken: Connection
        self._wake: Connection

    def run(self) -> None:
        """Return when every worker has ended: after SIGTERM or SIGINT, or of itself where they work in a burst."""
        self._woken, self._wake = fresh.Pipe(duplex=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, self._stop)
        for _ in range(self.processes):
            self._start()
        while self._children:
            wait([child.sentinel for child in self._children])
            for child in [child for child in self._children if child.exitcode is not None]:
                self._children.remove(child)
                if child.exitcode:
                    self._replace(child)

    def _replace(self, lost: BaseProcess) -> None:
        if not self._stopping:
            logger.error("Worker %s ended with %s; starting another.", lost.pid, lost.exitcode)
            self._woken.poll(RESTART_PAUSE)
        if not self._stopping:
            self._start()

    def _start(self) -> None:
        child = fresh.Process(target=work, args=(self.options,), name="taskworker")
        child.start()
        self._children.append(child)
        if self._stopping:  # the signal came in between
            _tell(child, signal.SIGTERM)

    def _stop(self, signum: int, frame: object) -> None:
        """Let the workers finish; on SIGUSR1 or a second Ctrl-C, without giving running tasks more time."""
        hurry = signum == signal.SIGUSR1 or (self._stopping and signum == signal.SIGINT)
        self._stopping = True
        self._wake.send(None)
        for child in self._children:
            _tell(child, signal.SIGUSR1 if hurry else signal.SIGTERM)


def _tell(child: BaseProcess, signum: int) -> None:
    if child.pid is not None and child.exitcode is None:
        os.kill(child.pid, signum)
