"""Workers that are lost at the same time: their leases expire together, and the tests wait 10 s only once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.stack import EXPIRED, FaultStack, Rest
from tests.support.databases import Databases
from tests.support.processes import is_there
from tests.support.waiting import wait_for


class LostWorkers:
    """One worker is killed, and two are frozen: `rescuer` takes up the runs of `killed` and `frozen`.

    The queue of `alone` has no other worker. One run of the killed worker has its row locked until the other runs are
    taken up, as if a worker was cut off inside a transaction. Two of the runs have processes of their own.
    """

    def __init__(self, databases: Databases, directory: Path) -> None:
        self.stack = FaultStack(databases, "postgres", directory, workers=("frozen",))
        self.gates = {name: directory / f"gate-{name}" for name in ("killed", "frozen", "alone", "isolated")}

    @contextmanager
    def begun(self) -> Iterator[None]:
        with self.stack, self.stack.client() as client:
            self.rest = Rest(client)
            self._begin()
            yield
            for gate in self.gates.values():
                gate.touch()
            with suppress(ProcessLookupError):
                os.kill(self.stuck_child, signal.SIGKILL)  # its parent is dead, and cannot end it

    def _begin(self) -> None:
        stack = self.stack
        stack.start_worker("--queue", "own", name="alone")
        self.alone = self._start("alone", "own_hold", "own_async_hold", "own_loop")
        self.frozen = self._start("frozen", "hold", "async_hold", "loop")
        self.isolated, self.isolated_pid = self._start_isolated("alone", gate=str(self.gates["isolated"]))
        stack.pause("alone")
        stack.pause("frozen")
        stack.start_worker(name="killed")
        self.killed = self._start("killed", "hold", "async_hold", "precious")
        (self.spent,) = self._start("killed", "spent").values()
        stack.worker_of(self.spent, attempt=2)  # the first raised what its `retry_on` names
        (self.cancelled,) = self._start("killed", "hold").values()
        assert self.rest.cancel(self.cancelled).status_code == 202
        (self.locked,) = self._start("killed", "hold").values()
        self.stuck, self.stuck_pid = self._start_isolated("stuck")
        self.stuck_child = stack.executions(self.stuck, "child")[0]["pid"]
        with stack.locked(self.locked):
            self.killed_at = time.time()
            stack.kill("killed")
            self.pending = self.rest.start("burst", n=3)
            stack.flush()
            stack.start_worker(name="rescuer")
            self.kept, self.expired = self._expire()
            for runs in (self.killed, self.frozen):
                stack.worker_of(runs["hold"], attempt=2)
            wait_for(lambda: stack.executions(self.pending), EXPIRED)
        self.unlocked_at = time.time()

    def _start(self, worker: str, *tasks: str) -> dict[str, str]:
        """Start these tasks, and wait until that worker executes them and their first messages are recorded."""
        uuids = {task: self.rest.start(task, gate=str(self.gates[worker])) for task in tasks}
        for task, uuid in uuids.items():
            assert self.stack.worker_of(uuid) == worker
            if not task.endswith("loop"):
                self.rest.until(uuid, lambda run: run["message_count"] > 0)
        return uuids

    def _expire(self) -> list[str]:
        """Two finished runs that have expired; a table of the project points to the first."""
        uuids = [self.rest.start("burst", n=1) for _ in range(2)]
        for uuid in uuids:
            self.rest.ended(uuid, EXPIRED)
        with self.stack.connect() as connection:
            connection.execute("CREATE TABLE bill (run bigint REFERENCES taskapi_taskinfo)")
            connection.execute("INSERT INTO bill SELECT id FROM taskapi_taskinfo WHERE uuid = %s", [uuids[0]])
            connection.execute("UPDATE taskapi_taskinfo SET expires = now() WHERE uuid = ANY(%s::uuid[])", [uuids])
        return uuids

    def _start_isolated(self, task: str, **inputs: str) -> tuple[str, int]:
        """Start the task; its uuid and its process, once that executes it."""
        uuid = self.rest.start(task, **inputs)
        pid = wait_for(lambda: self.stack.executions(uuid))[0]["pid"]
        assert is_there(pid)
        return uuid, pid

    def seconds_until(self, moment: float) -> float:
        """The seconds from the kill to that moment."""
        return moment - self.killed_at
