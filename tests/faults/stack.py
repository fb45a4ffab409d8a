"""A stack whose servers can be killed, stopped, emptied and started again, and that is whole again afterwards."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import redis

from tests.support.databases import Databases
from tests.support.stack import Stack
from tests.support.waiting import wait_for

WORKERS = ("one", "two")
LAYERS: dict[str, dict[str, Any] | None] = {
    "default": None,  # the one of our own: pubsub
    "core": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"capacity": 10}},
    "deaf": {"BACKEND": "tests.faults.layers.DeafLayer"},
    "last-only": {"BACKEND": "tests.faults.layers.LastOnlyLayer"},
}
EXPIRED = 30.0  # seconds in which a lost worker's runs are taken up, on a machine that has other things to do


class FaultStack(Stack):
    """Two workers, a daphne and a Valkey around one database; the database's server may be struck as well."""

    def __init__(self, databases: Databases, kind: str, directory: Path, layer: str = "default") -> None:
        super().__init__(databases.new(kind), directory)
        self.databases = databases
        self.kind = kind
        self.layer = LAYERS[layer]
        self.journal = directory / "journal"
        self.journal.mkdir()
        self.workers = WORKERS
        self.webs: tuple[str, ...] = ("web",)

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            self.manage("migrate", "--verbosity=0")
            self.heal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.popen.kill()  # not `stop`: what a failed test has left may hold a task that never ends
            process.popen.wait()
        self.processes.clear()
        self.valkey.terminate()

    @property
    def environment(self) -> dict[str, str]:
        added = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "FAULTS_JOURNAL": str(self.journal)}
        if self.layer is not None:
            config = {"hosts": [f"{self.valkey.connection_url}/0"]} | self.layer.get("CONFIG", {})
            added["FAULTS_LAYER"] = json.dumps(self.layer | {"CONFIG": config})
        return super().environment | self.extra | added

    extra: dict[str, str] = {}  # for the processes that are started next

    def heal(self) -> None:
        """Bring everything back that is struck."""
        if self.kind == "postgres":
            self.databases.start_postgres()
        if self.valkey._process is None:
            self.valkey.start()
        self.resume_valkey()
        for name in list(self.processes):
            self.resume(name)
            if name not in (*self.workers, *self.webs) or self.processes[name].popen.poll() is not None:
                self.kill(name)
        if not set(self.webs) <= set(self.processes):
            self.start_web()
        for name in self.workers:
            if name not in self.processes:
                self.start_worker(name=name)

    # Faults

    def kill(self, name: str) -> None:
        """End it without a word: kill -9."""
        process = self.processes.pop(name)
        process.popen.kill()
        process.popen.wait()

    def pause(self, name: str) -> None:
        """Stop its clock."""
        self.processes[name].popen.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].popen.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(f"{self.valkey.connection_url}/0") as client:
            client.flushall()

    def stop_valkey(self) -> None:
        """End Valkey, and leave nothing of what it held."""
        self.valkey.terminate()
        for path in self.valkey.data_dir.glob("*.rdb"):
            path.unlink()

    def pause_valkey(self) -> None:
        """Let Valkey answer nothing, and refuse nothing either."""
        self.valkey._process.send_signal(signal.SIGSTOP)

    def resume_valkey(self) -> None:
        self.valkey._process.send_signal(signal.SIGCONT)

    # What became of it

    def executions(self, uuid: str, what: str = "began") -> list[dict[str, Any]]:
        """The lines of that kind that the run's task has left, by its own hand."""
        path = self.journal / uuid
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if line["what"] == what]

    def worker_of(self, uuid: str, attempt: int = 1, limit: float = EXPIRED) -> str:
        """The name of the process that executes this attempt, once it does."""

        def look() -> str | None:
            pids = {process.popen.pid: name for name, process in self.processes.items()}
            return next((pids[line["pid"]] for line in self.executions(uuid) if line["attempt"] == attempt), None)

        return wait_for(look, limit)


class Rest:
    """Runs, over REST."""

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
        """The run, once `accept` says so of it."""

        def look() -> dict[str, Any] | None:
            run = self.get(uuid)
            return run if accept(run) else None

        return wait_for(look, limit)

    def ended(self, uuid: str, limit: float = 20.0) -> dict[str, Any]:
        """The run, once it has ended."""
        return self.until(uuid, lambda run: run["finished"] is not None, limit)
