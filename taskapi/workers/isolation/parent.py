"""The worker's side: starts the process of a run, receives what it says, and ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from taskapi.exceptions import Interrupted
from taskapi.runs import PROCESS_LOST, Outcome
from taskapi.workers.call import TaskCall
from taskapi.workers.isolation.entry import BEGUN, main
from taskapi.workers.processes import fresh

logger = logging.getLogger(__name__)

KILL_AFTER = 2.0  # seconds after which a process is killed that was told to stop, or has sent its outcome
LOOK_INTERVAL = 0.2  # seconds between two looks at a silent process: a process that it forked may hold its pipe open


class Isolated:
    """The call of a task in a process of its own."""

    def __init__(self, call: TaskCall) -> None:
        self._call = call
        self._ours, self._theirs = fresh.Pipe()
        self._process = fresh.Process(
            target=main, args=(self._theirs, pickle.dumps(call.info), os.getpid()), name="taskapi-run"
        )

    async def run(self) -> Outcome:
        """Execute the run and return its outcome. A thread looks after the process until it has ended."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        timers: list[asyncio.TimerHandle] = []

        def stop() -> None:
            with suppress(OSError):  # it has ended meanwhile
                self._ours.send(self._call.interruption)
            timers.append(loop.call_later(KILL_AFTER, self._kill))

        def tell(said: Outcome) -> None:
            loop.call_soon_threadsafe(outcome.set_result, said)

        self._call.on_interrupt(stop)
        threading.Thread(target=self._look_after, args=(tell,), name="taskapi-process").start()
        try:
            return await outcome
        finally:
            self._call.ended()
            for timer in timers:
                timer.cancel()

    def _look_after(self, tell: Callable[[Outcome], None]) -> None:
        """Start the process, tell its outcome, and leave nothing of it behind."""
        try:
            self._process.start()
            self._theirs.close()
            outcome = self._listen()
        except Exception as error:  # noqa: BLE001 - it could not be started, say
            outcome = self._call.stumble(error)
        if outcome is not None:
            tell(outcome)
            self._end(KILL_AFTER)  # at its exit, log handlers and others send what they have buffered
        else:
            self._end(0)
            tell(self._lost())

    def _listen(self) -> Outcome | None:
        """Pass on what the task says until its outcome comes; None if the process ends without one."""
        while True:
            ended = self._process.exitcode is not None
            if self._ours.poll(0 if ended else LOOK_INTERVAL):
                try:
                    said = self._ours.recv()
                except (EOFError, OSError):
                    return None
                if isinstance(said, Outcome):
                    return said
                if said == BEGUN:
                    self._call.on_begin()
                else:
                    self._call.speaker.repeat(said)
            elif ended:
                return None

    def _lost(self) -> Outcome:
        """The outcome of a run whose process sent none: it was stopped, or died."""
        if self._call.interruption is not None:
            return self._call.fail(Interrupted())
        info = self._call.info
        logger.error("The process of run %s ended with %s, without an outcome.", info.uuid, self._process.exitcode)
        return PROCESS_LOST

    def _end(self, seconds: float) -> None:
        """Wait so long for the process to end by itself; then kill it."""
        if self._process.pid is not None:
            self._process.join(seconds)
            self._kill()
            self._process.join()
        self._ours.close()

    def _kill(self) -> None:
        """End the process, and what it started in its group."""
        if self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()  # it may have no group of its own yet
