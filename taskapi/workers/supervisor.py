"""Worker processes under one parent, which starts a lost one again and ends with all of them.

So it starts another, too, in the place of one that has ended because the code has changed (taskapi.workers.reloading).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

from django.db import connections

from taskapi.workers import upkeep
from taskapi.workers.processes import fresh
from taskapi.workers.supervised import Surroundings, main

logger = logging.getLogger(__name__)

RESTART_PAUSE = 1.0  # seconds between two tries: a process that cannot start must not keep the machine busy
LOOK_INTERVAL = 0.2  # seconds between two looks at the children: a process that a task forked may hold a sentinel open
RELEASE_LIMIT = 5.0  # seconds for which the parent waits, before it ends, until the runs of dead workers are freed


class _Child(NamedTuple):
    process: BaseProcess
    identity: str  # the name under which it holds its runs


class Supervisor:
    """`processes` workers with the same options."""

    def __init__(
        self,
        processes: int,
        options: dict[str, Any],
        surroundings: Surroundings = Surroundings(),  # noqa: B008 - immutable
    ) -> None:
        self.processes = processes
        self.options = options
        self.surroundings = surroundings
        self._children: list[_Child] = []
        self._due: list[float] = []  # when a process is to be started; by the monotonic clock
        self._releases: list[Thread] = []
        self._stopping = False

    def run(self) -> None:
        """Run until every worker has ended: after SIGTERM or SIGINT or, in a burst, by themselves."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, self._stop)
        self._due = [time.monotonic()] * self.processes
        while True:
            self._start_those_due()
            if not (self._children or self._due):
                break
            wait([child.process.sentinel for child in self._children], LOOK_INTERVAL)
            for child in [child for child in self._children if child.process.exitcode is not None]:
                self._children.remove(child)
                self._bury(child)
        deadline = time.monotonic() + RELEASE_LIMIT
        for release in self._releases:
            release.join(max(0.0, deadline - time.monotonic()))

    def _bury(self, child: _Child) -> None:
        """Free the runs of a worker that has ended; start another one, unless it was told to end."""
        code = child.process.exitcode
        if code == 0 and (self._stopping or self.options.get("burst")):
            return  # it was told to end, and has handed back its runs itself
        release = Thread(target=_release, args=(child.identity,), daemon=True)  # the database may be away
        release.start()
        self._releases = [*(other for other in self._releases if other.is_alive()), release]
        if self._stopping:
            return
        if code == 0 and self.surroundings.reload:  # the code has changed
            self._due.append(time.monotonic())
        else:
            logger.error("Worker %s ended with %s; starting another.", child.process.pid, code)
            self._due.append(time.monotonic() + RESTART_PAUSE)

    def _start_those_due(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._due if moment <= now]
        self._due = [] if self._stopping else [moment for moment in self._due if moment > now]
        for _ in due:
            if not self._stopping:
                self._start()

    def _start(self) -> None:
        identity = uuid4().hex
        arguments = (self.options | {"identity": identity}, self.surroundings)
        process = fresh.Process(target=main, args=arguments, name="taskworker")
        try:
            process.start()
        except OSError as error:  # no memory, say: the other workers go on
            logger.error("A worker could not be started: %r; next try in %g s.", error, RESTART_PAUSE)
            self._due.append(time.monotonic() + RESTART_PAUSE)
            return
        self._children.append(_Child(process, identity))
        if self._stopping:  # the signal came while it was started
            _tell(process, signal.SIGTERM)

    def _stop(self, signum: int, frame: object) -> None:
        """Tell the workers to finish; on SIGUSR1 or a second Ctrl-C, to give running tasks no more time."""
        hurry = signum == signal.SIGUSR1 or (self._stopping and signum == signal.SIGINT)
        self._stopping = True
        for child in self._children:
            _tell(child.process, signal.SIGUSR1 if hurry else signal.SIGTERM)


def _release(identity: str) -> None:
    """Free the runs of a dead worker before their leases run out."""
    try:
        upkeep.release(identity)
    except Exception as error:  # noqa: BLE001 - the database is away, say
        logger.warning(
            "The runs of a dead worker could not be freed (%r); other workers take them when their leases run out.",
            error,
        )
    finally:
        connections.close_all()


def _tell(child: BaseProcess, signum: int) -> None:
    if child.pid is not None and child.exitcode is None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(child.pid, signum)
