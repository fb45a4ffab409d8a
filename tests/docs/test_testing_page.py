"""docs/testing.md, followed word for word: its tests pass in a new project, with `manage.py test` and with pytest."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, fences

PAGE = "docs/testing.md"
LIMIT = 120.0  # seconds, on a busy machine
PYTEST = ("-m", "pytest", "-p", "no:asyncio", "--ds=mysite.settings")  # a new project has no pytest-asyncio
FIVE = 5  # "Five tests that every project writes"

SETTINGS = """
INSTALLED_APPS += ["taskapi", "myapp"]
TASK_API_BACKGROUND_TASKS = ["myapp.tasks.AddUsers"]
TASK_API_REDIS_URL = "redis://127.0.0.1:1/0"
"""

# Writes to a file where the process connects to. An import hook of Python runs it at the start of each process.
AUDIT = """
import os, sys

def heard(event, args):
    if event == "socket.connect":
        with open(os.environ["CONNECTED"], "a") as file:
            print(args[1], file=file)

sys.addaudithook(heard)
"""


class Project:
    """A new project, as `startproject` and `startapp` make it, with the files of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connected = folder / "connected"
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.environment = {**os.environ, "PYTHONPATH": path, "CONNECTED": str(self.connected)}
        for name in ("DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
            self.environment.pop(name, None)
        self.run("-m", "django", "startproject", "mysite", ".")
        self.run("manage.py", "startapp", "myapp")
        with (folder / "mysite/settings.py").open("a") as settings:
            settings.write(SETTINGS)
        others = 0
        for fence in fences(PAGE, "python"):
            for name, text in fence.files.items():
                (folder / name).write_text(text)
            if not fence.files and "class " in fence.code and "Test(" in fence.code:
                others += 1
                (folder / f"myapp/test_sample_{others}.py").write_text(fence.code)
        (folder / "sitecustomize.py").write_text(AUDIT)
        self.install()

    def install(self) -> None:
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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def passed(output: str) -> int:
    found = re.search(r"Ran (\d+) tests|(\d+) passed", output)
    assert found, output
    return int(found[1] or found[2])


@pytest.mark.timeout(2 * LIMIT)
def test_the_tests_of_the_page_pass(project: Project) -> None:
    """Each in a new process, with SQLite in memory, as a new project has it."""
    classes = project.run("-W", "error::ResourceWarning", "manage.py", "test", "-v", "2")
    assert passed(classes) >= 2 * FIVE, "the five, and those of the other samples"
    assert passed(project.run("manage.py", "test", "myapp.tests")) == FIVE
    functions = project.run(*PYTEST, "myapp/test_with_pytest.py")
    assert passed(functions) == FIVE
    all_of_them = project.run(*PYTEST, "-W", "error", "-o", "python_files=tests.py test_*.py")
    assert passed(all_of_them) >= 3 * FIVE
    assert project.connections() == ""


def test_the_audit_sees_connections(project: Project) -> None:
    """Else the test above could not fail."""
    script = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"
    project.run("-c", script)
    assert "127.0.0.1" in project.connections()


def test_the_plugin_of_pytest_imports_nothing_of_django() -> None:
    script = "import sys, json, taskapi.pytest_plugin; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = json.loads(output)
    assert [name for name in loaded if name.split(".")[0] in ("django", "channels", "arq", "asgiref")] == []
    assert [name for name in loaded if name.startswith("taskapi")] == ["taskapi", "taskapi.pytest_plugin"]
