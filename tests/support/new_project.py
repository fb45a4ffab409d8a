"""A new Django project in a folder of its own, which uses the package as an installation would."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import ROOT

LIMIT = 120.0  # seconds for one command, on a busy machine

# Writes to a file where the process connects to. An import hook of Python runs it at the start of each process.
AUDIT = """
import os, sys

def heard(event, args):
    if event == "socket.connect":
        with open(os.environ["CONNECTED"], "a") as file:
            print(args[1], file=file)

sys.addaudithook(heard)
"""


class NewProject:
    """As `startproject` and `startapp` make it, with `settings` at the end of its settings. Its app is `myapp`."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.connected = folder / "connected"
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.environment = {**os.environ, "PYTHONPATH": path, "CONNECTED": str(self.connected)}
        for name in ("DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
            self.environment.pop(name, None)
        self.run("-m", "django", "startproject", "mysite", ".")
        self.run("manage.py", "startapp", "myapp")
        with (folder / "mysite/settings.py").open("a") as file:
            file.write(settings)
        (folder / "sitecustomize.py").write_text(AUDIT)
        self._install()

    def _install(self) -> None:
        """Declare the entry points of the package, as its installation would."""
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
        info = self.folder / "django_task_api-2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: django-task-api\nVersion: 2\n")
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
                for group, entries in scripts.items()
            )
        )

    def run(self, *arguments: str) -> str:
        """Run Python in the project's folder; its output."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def connections(self) -> str:
        return self.connected.read_text() if self.connected.exists() else ""
