"""The process's side: executes one run, and says over the connection how it goes and how it ends."""

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

PAUSE = 0.01  # seconds between two collections of what the task says; its worker reports once an interval


def execute(connection: Connection, info: TaskInfo) -> None:
    """Run the task here, in the main thread, and send its outcome as the last word."""
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

            async def run() -> None:  # whatever else it has left on the loop is waited for after its last word
                relay.end(await call.arun(task))

            asyncio.run(run())
        else:
            relay.end(with_connections(lambda: call.run(task), info.uuid))


def _hear(connection: Connection, call: TaskCall) -> None:
    """Stop the task when the worker says so; end with all that it has started when the worker is gone."""
    try:
        while True:
            call.interrupt(connection.recv())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


class Relay(threading.Thread):
    """Sends what the task says, as it says it."""

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
            time.sleep(PAUSE)

    def begin(self) -> None:
        """Say that the task's first line is about to run."""
        with self._sending:
            self._connection.send(BEGUN)

    def end(self, outcome: Outcome) -> None:
        """Send the last words and the outcome."""
        sys.stdout.flush()
        with self._sending:
            self._connection.send(self.speaker.collect())
            self._connection.send(outcome)
