"""A small site whose server executes its own runs (LocalBackend), in a folder of its own: one SQLite file, no Redis."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.stack import Process, free_port
from tests.support.waiting import wait_for

RETOUCH = 3.0  # seconds: runserver looks once a second at its files
CONNECTS = "connects to"  # printed by each process that opens a connection

SETTINGS = f"""
import os, sys
from tests.project.settings import *

def watch(event, arguments):
    if event == "socket.connect":
        print("{CONNECTS}", arguments[1], file=sys.stderr, flush=True)

sys.addaudithook(watch)
INSTALLED_APPS = [*os.environ.get("FIRST_APPS", "").split(), *INSTALLED_APPS]
DATABASES["default"]["NAME"] = os.path.join(os.path.dirname(__file__), "site.sqlite3")
TASK_API_BACKEND = "taskapi.backends.local.LocalBackend"
TASK_API_BACKGROUND_TASKS = ["site_tasks.Steps", "tests.project.isolated.Stuck"]
del TASK_API_REDIS_URL
"""

TASKS = """
from pathlib import Path
from time import sleep

from taskapi.params import IntParameter, StringParameter
from taskapi.tasks import Task


class Steps(Task):
    \"\"\"Say which attempt this is, take three steps, and work on until a file exists.\"\"\"

    name = "steps"
    inputs = {"file": StringParameter()}
    outputs = {"attempt": IntParameter()}

    def run(self, file):
        self.add_message(f"attempt {self.info.attempt}")
        for number in self.track(range(3)):
            self.add_message(number)
        while not Path(file).exists():
            self.check_cancelled()
            sleep(0.01)
        return self.info.attempt
"""

WSGI = """
import sys
from contextlib import suppress
from wsgiref.simple_server import make_server

from django.core.wsgi import get_wsgi_application

with make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()) as server, suppress(KeyboardInterrupt):
    print("Listening on TCP address 127.0.0.1:", sys.argv[1], sep="", flush=True)
    server.serve_forever()
"""

#: Loads the application, and forks two processes that serve it, as gunicorn does with `--preload`.
FORKING = """
import os, signal, socket, sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))

def serve():
    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.socket.close()
    server.socket = listening
    server.set_app(application)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as gunicorn's workers do
    server.serve_forever()

children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        serve()
    children.append(child)
print("Listening on TCP address 127.0.0.1:", sys.argv[1], sep="", flush=True)

def end(*_):
    for child in children:
        os.kill(child, signal.SIGTERM)

signal.signal(signal.SIGTERM, end)
for child in children:
    os.waitpid(child, 0)
"""

ASGI = "from taskapi.asgi import get_asgi_application\n\napplication = get_asgi_application()\n"


class Site:
    """The folder, and the servers that a test starts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = str(folder / "site.sqlite3")
        self.processes: dict[str, Process] = {}
        self.started: list[Process] = []  # also those in whose place another was started
        self.ports: dict[str, int] = {}
        self.logs: list[Path] = []
        files = {"site_settings": SETTINGS, "site_tasks": TASKS, "asgi": ASGI, "wsgi": WSGI, "forking": FORKING}
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)

    def __enter__(self) -> Self:
        self.python("-m", "django", "migrate", "--verbosity=0")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):  # runserver has a second process, which outlives a killed first one
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()

    @property
    def environment(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([str(self.folder), root])
        return os.environ | {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "site_settings"}

    def python(self, *arguments: str) -> str:
        """Run Python in the site to its end; what it printed, to both streams."""
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def run_in_shell(self, code: str) -> str:
        """Execute the code in a `manage.py shell`."""
        return self.python("-m", "django", "shell", "--command", f"from site_tasks import Steps\n{code}")

    # Servers

    def start(self, name: str, *module: str, serves: str, **environment: str) -> Process:
        """Start a server by a command that ends with its port; wait until it prints `serves`."""
        port = self.ports.setdefault(name, free_port())
        log = self.folder / f"{name}.log"
        self.logs.append(log)
        command = [sys.executable, *module, str(port)]
        process = Process(name, command, self.environment | environment, log, self.folder, group=0)
        self.processes[name] = process
        self.started.append(process)
        process.wait_for_output(serves)
        return process

    def start_daphne(self, name: str = "web") -> Process:
        return self.start(name, "-m", "daphne", "asgi:application", "--port", serves="Listening on TCP address")

    def start_wsgi(self, script: str = "wsgi") -> Process:
        return self.start("web", f"{script}.py", serves="Listening on TCP address")

    def start_runserver(self, *first_apps: str, serves: str = "Quit the server") -> Process:
        return self.start("web", "-m", "django", "runserver", serves=serves, FIRST_APPS=" ".join(first_apps))

    def make_reload(self) -> None:
        """Change a file of the site, so that runserver restarts its process; return when it begins to."""
        process, touched = self.processes["web"], 0.0

        def reloads() -> bool:
            nonlocal touched
            if "reloading" in process.output:
                return True
            if time.monotonic() > touched + RETOUCH:  # the reloader may not have known the file when it was touched
                (self.folder / "site_tasks.py").touch()
                touched = time.monotonic()
            return False

        wait_for(reloads)

    def client(self, name: str = "web") -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports[name]}", timeout=10)

    def ws_url(self, name: str = "web") -> str:
        return f"ws://127.0.0.1:{self.ports[name]}/tasks/ws/"

    def output(self) -> str:
        """What all servers have printed."""
        return "".join(log.read_text(errors="replace") for log in set(self.logs))

    # Runs, by their rows: so that no request is made

    def row(self, uuid: str = "") -> dict[str, Any]:
        """The row of the run; of the only one, without a uuid."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            where = "uuid = ?" if uuid else "? = ''"
            found = connection.execute(f"SELECT * FROM taskapi_taskinfo WHERE {where}", [uuid.replace("-", "")])  # noqa: S608 - our own
            (row,) = found.fetchall()
            return dict(row)

    def until_row(self, uuid: str = "", limit: float = 30.0, **fields: Any) -> dict[str, Any]:
        """Wait until the row has these values."""

        def look() -> dict[str, Any] | None:
            row = self.row(uuid)
            return row if fields.items() <= row.items() else None

        return wait_for(look, limit)
