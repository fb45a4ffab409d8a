"""A stack whose servers can be killed, frozen, emptied and restarted, and which can repair itself."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import redis

from tests.support.databases import Databases
from tests.support.stack import WEB_SERVES, WORKER_SERVES, Process, Stack, free_port
from tests.support.waiting import wait_for

WORKERS = ("one", "two")
WEBS = ("web",)
LAYERS: dict[str, dict[str, Any] | None] = {
    "default": None,  # our own layer, on channels_redis.pubsub
    "core": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"capacity": 10}},
    "deaf": {"BACKEND": "tests.faults.layers.DeafLayer"},
    "last-only": {"BACKEND": "tests.faults.layers.LastOnlyLayer"},
}
OVER_CAPACITY = "channels over capacity"  # the core layer logs this if it drops an event
CALM = 120.0  # seconds after the last fault in which all runs have to end: every attempt may wait for a lease
TAKEN_UP = 15.0  # seconds in which the runs of a lost worker are taken up, as docs/guarantees.md promises
START_LIMIT = 60.0  # seconds in which a server serves, also during a storm
EXPIRED = 30.0  # seconds that a test waits for a takeover on a busy machine

_postgres = threading.Lock()  # pgserver has one lock for all servers, and it does not hold off threads


class FaultStack(Stack):
    """Workers, daphnes and a Valkey around one database, whose server may be struck as well."""

    def __init__(
        self,
        databases: Databases,
        kind: str,
        directory: Path,
        layer: str = "default",
        *,
        workers: tuple[str, ...] = WORKERS,
        webs: tuple[str, ...] = WEBS,
    ) -> None:
        super().__init__(databases.new(kind), directory)
        self.databases = databases
        self.kind = kind
        self.layer = LAYERS[layer]
        self.journal = directory / "journal"
        self.journal.mkdir()
        self.workers = workers
        self.ports = {name: free_port() for name in webs}
        self.port = next(iter(self.ports.values()))
        self.names: dict[int, str] = {}  # by process id: the names of all processes that were ever started

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            self.whole = super().environment  # read now: a stopped Valkey has no address
            self.manage("migrate", "--verbosity=0")
            self.heal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.popen.kill()  # not `stop`: a failed test may leave a task that never ends
            process.popen.wait()
        self.processes.clear()
        self.valkey.terminate()

    @property
    def environment(self) -> dict[str, str]:
        added = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "FAULTS_JOURNAL": str(self.journal)}
        if self.layer is not None:
            config = {"hosts": [self.whole["TEST_REDIS_URL"]]} | self.layer.get("CONFIG", {})
            added["FAULTS_LAYER"] = json.dumps(self.layer | {"CONFIG": config})
        return self.whole | self.extra | added

    extra: dict[str, str] = {}  # for the processes that are started next
    options: tuple[str, ...] = ()  # of the command `taskworker`

    def heal(self) -> None:
        """Start everything again that was struck."""
        if self.kind == "postgres":
            self.start_postgres()
        if self.valkey._process is None:
            self.valkey.start()
        self.resume_valkey()
        whole = (*self.ports, *self.workers)
        for name in list(self.processes):
            self.resume(name)
            if name not in whole or self.processes[name].popen.poll() is not None:
                self.kill(name)
        self.start(*(name for name in whole if name not in self.processes))

    def start(self, *names: str) -> None:
        """Start these web servers and workers at once, and wait until all of them serve."""
        for name in names:
            if name in self.ports:
                self._launch_web(name, self.ports[name])
            else:
                self._launch_worker(name, *self.options)
        for name in names:
            self.processes[name].wait_for_output(WEB_SERVES if name in self.ports else WORKER_SERVES, START_LIMIT)

    def _start(self, name: str, *module: str) -> Process:
        process = super()._start(name, *module)
        self.names[process.popen.pid] = name
        return process

    # Faults

    def kill(self, name: str) -> None:
        """End the process by kill -9."""
        process = self.processes.pop(name)
        process.popen.kill()
        process.popen.wait()

    def pause(self, name: str) -> None:
        """Freeze the process by SIGSTOP."""
        self.processes[name].popen.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].popen.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(self.whole["TEST_REDIS_URL"]) as client:
            client.flushall()

    def stop_valkey(self) -> None:
        """Stop Valkey and delete its data."""
        self.valkey.terminate()
        for path in self.valkey.data_dir.glob("*.rdb"):
            path.unlink()

    def stop_postgres(self) -> None:
        """Stop PostgreSQL while others use it."""
        with _postgres:
            self.databases.stop_postgres()

    def start_postgres(self) -> None:
        with _postgres:
            self.databases.start_postgres()

    def pause_valkey(self) -> None:
        """Freeze Valkey: it accepts connections and answers nothing."""
        self.valkey._process.send_signal(signal.SIGSTOP)

    def resume_valkey(self) -> None:
        self.valkey._process.send_signal(signal.SIGCONT)

    # What happened

    def lines(self, uuid: str) -> list[dict[str, Any]]:
        """The lines that the run's task wrote."""
        path = self.journal / uuid
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def executions(self, uuid: str, what: str = "began") -> list[dict[str, Any]]:
        """The lines of one kind."""
        return [line for line in self.lines(uuid) if line["what"] == what]

    def worker_of(self, uuid: str, attempt: int = 1, limit: float = EXPIRED) -> str:
        """The name of the worker that executes this attempt, once it does."""
        line = wait_for(lambda: next((e for e in self.executions(uuid) if e["attempt"] == attempt), None), limit)
        return self.names[line["worker"]]

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the PostgreSQL database, past all servers."""
        address = {"host": self.database["HOST"], "user": self.database["USER"], "dbname": self.database["NAME"]}
        return psycopg.connect(**address, autocommit=True)

    @contextmanager
    def locked(self, uuid: str) -> Iterator[None]:
        """Hold the lock of a run's row, as a worker does that is frozen inside a transaction."""
        with self.connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("SELECT 1 FROM taskapi_taskinfo WHERE uuid = %s FOR UPDATE", [uuid])
            yield

    def drops(self) -> int:
        """How many events the core layer dropped, by its logs."""
        return sum(log.count(OVER_CAPACITY) for log in self.logs().values())


class Rest:
    """Starts, reads and cancels runs by REST."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def start(self, task: str, headers: dict[str, str] | None = None, **inputs: Any) -> str:
        answer = self.client.post("/tasks/", json={"task": task, "inputs": inputs}, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["uuid"]

    def get(self, uuid: str) -> dict[str, Any]:
        answer = self.client.get(f"/tasks/{uuid}/")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cancel(self, uuid: str) -> httpx.Response:
        return self.client.post(f"/tasks/{uuid}/cancel/")

    def until(self, uuid: str, accept: Callable[[dict[str, Any]], bool], limit: float = 20.0) -> dict[str, Any]:
        """The run, once `accept` of it is true."""

        def look() -> dict[str, Any] | None:
            run = self.get(uuid)
            return run if accept(run) else None

        return wait_for(look, limit)

    def ended(self, uuid: str, limit: float = 20.0) -> dict[str, Any]:
        """The run, once it has ended."""
        return self.until(uuid, lambda run: run["finished"] is not None, limit)
