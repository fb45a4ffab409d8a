"""The process's side: executes one run, and sends what its task says, and its outcome, to the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from asgiref.sync import iscoroutinefunction

from taskapi.exceptions import UnknownTask
from taskapi.models import TaskInfo
from taskapi.protocol.states import ErrorCode
from taskapi.runs import Outcome
from taskapi.tasks.progress import Speaker
from taskapi.tasks.registry import get_task
from taskapi.workers.call import TaskCall, with_connections
from taskapi.workers.isolation.entry import BEGUN
from taskapi.workers.processes import log_to_terminal

SEND_INTERVAL = 0.01  # seconds between two looks at what the task says; the worker reports less often


def execute(connection: Connection, info: TaskInfo) -> None:
    """Run the task here, in the main thread, and send its outcome last."""
    log_to_terminal()
    relay = Relay(connection, info)
    call = TaskCall(info, relay.speaker)
    call.on_begin = relay.begin
    threading.Thread(target=_hear, args=(connection, call), daemon=True).start()
    relay.start()
    try:
        task = call.make(get_task(info.task))
    except UnknownTask as error:
        relay.end(Outcome.failed(ErrorCode.UNKNOWN_TASK, str(error)))
    except BaseException as error:  # noqa: BLE001 - a task that cannot even be made
        relay.end(call.fail(error))
    else:
        if iscoroutinefunction(task.run):

            async def run() -> None:  # the outcome is sent before asyncio waits for what the task left on the loop
                relay.end(await call.arun(task))

            asyncio.run(run())
        else:
            relay.end(with_connections(lambda: call.run(task), info.uuid))


def _hear(connection: Connection, call: TaskCall) -> None:
    """Stop the task when the worker says so; if the worker is gone, kill this process and all that it started."""
    try:
        while True:
            call.interrupt(connection.recv())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


class Relay(threading.Thread):
    """Sends to the worker what the task says."""

    def __init__(self, connection: Connection, info: TaskInfo) -> None:
        super().__init__(name="taskapi-relay", daemon=True)
        self._woken = threading.Event()
        self.speaker = Speaker(info.target, info.progress, wake=self._woken.set)
        self._connection = connection
        self._sending = threading.Lock()

    def run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            with self._sending:
                self._connection.send(self.speaker.collect())
            time.sleep(SEND_INTERVAL)

    def begin(self) -> None:
        """Say that the task's first line is about to run."""
        with self._sending:
            self._connection.send(BEGUN)

    def end(self, outcome: Outcome) -> None:
        """Send what is left to say, and the outcome."""
        sys.stdout.flush()
        with self._sending:
            self._connection.send(self.speaker.collect())
            self._connection.send(outcome)
