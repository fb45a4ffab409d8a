"""`taskworker --reload` starts again when the code changes: on a project that the test edits."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import children_of, is_there
from tests.support.stack import Process, Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.parametrize("stack", ["sqlite"], indirect=True), pytest.mark.timeout(120)]

SETTINGS = """
from tests.project.settings import *
TASK_API_BACKGROUND_TASKS = ["edited.Told", "edited.Held"]
"""
TASKS = """
from pathlib import Path
from taskapi.params import IntParameter, StringParameter
from taskapi.tasks import Task

class Told(Task):
    name = "told"
    queue = "edited"
    outputs = {"version": IntParameter()}

    def run(self):
        return VERSION

class Held(Told):
    name = "held"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.add_message("held")
        while self.info.attempt == 1:
            self.check_cancelled()
        return VERSION
"""
READY = "takes runs from: edited"
WAITS = "It waits until a file changes"


class Project:
    """A project of two files, and its worker."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "worker.log"
        path = os.pathsep.join(filter(None, [str(folder), str(Path.cwd()), os.environ.get("PYTHONPATH")]))
        self.environment = stack.environment | {"DJANGO_SETTINGS_MODULE": "edited_settings", "PYTHONPATH": path}
        self.edits = 0
        (folder / "edited_settings.py").write_text(SETTINGS)
        self.write(1)

    def write(self, version: int | str) -> None:
        """Save the tasks, at once, and each time with a later time of the file."""
        self.edits += 1
        file = self.folder / "edited.new"
        file.write_text(TASKS.replace("VERSION", str(version)))
        os.utime(file, (10**9 + self.edits, 10**9 + self.edits))
        file.rename(self.folder / "edited.py")

    def start(self, *options: str) -> Process:
        command = [sys.executable, "-m", "django", "taskworker", "--queue", "edited", "--reload", *options]
        self.worker = Process("worker", command, self.environment, self.log)
        return self.worker

    def edit(self, version: int | str, until: str) -> None:
        """Save the tasks until the worker has noticed: it sees no change before it has seen the file once."""
        before = self.count(until)
        noticed = self.worker.output.count("changed, reloading")

        def look() -> bool:
            self.write(version)
            return self.worker.output.count("changed, reloading") > noticed

        wait_for(look)
        wait_for(lambda: self.count(until) > before)

    def count(self, pattern: str) -> int:
        assert self.worker.popen.poll() is None, self.worker.output
        return len(re.findall(pattern, self.worker.output))

    def runtask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "django", "runtask", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=40, check=False)

    def told(self) -> int:
        """What the worker says is the version of the code."""
        ended = self.runtask("told", "--output", "json")
        assert ended.returncode == 0, f"{ended.stderr}\n{self.worker.output}"
        return json.loads(ended.stdout)["version"]


@pytest.fixture
def project(stack: Stack, tmp_path: Path) -> Iterator[Project]:
    project = Project(stack, tmp_path)
    yield project
    if project.worker.popen.poll() is None:
        project.worker.stop()


def test_the_worker_starts_again_when_the_code_changes_and_waits_while_it_is_broken(project):
    worker = project.start()
    worker.wait_for_output(READY)
    assert project.told() == 1
    project.edit(2, until=READY)
    assert project.told() == 2

    project.edit("(this is no Python", until=WAITS)
    assert "SyntaxError" in worker.output
    project.edit(3, until=READY)
    assert project.told() == 3
    assert "starting another" not in worker.output  # nothing has crashed
    assert worker.stop(signal.SIGINT) == 0


def test_what_runs_when_the_code_changes_is_handed_back_to_the_new_code(project, tmp_path):
    worker = project.start("--grace", "3600")
    worker.wait_for_output(READY)
    with subprocess.Popen(
        [sys.executable, "-m", "django", "runtask", "held", "--input", "gate=none", "--output", "json"],
        env=project.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        worker.wait_for_output(r"Run [0-9a-f-]{36} \(held\) begins\.")
        project.edit(2, until=READY)
        out, _ = running.communicate(timeout=40)
    assert (running.returncode, json.loads(out)) == (0, {"version": 2})
    worker.wait_for_output(r"\(held\) was handed back after [\d.]+ s; it is executed again\.")
    worker.wait_for_output(r"\(held\) begins attempt 2\.")


def test_several_processes_start_again(project):
    worker = project.start("--processes", "2")
    wait_for(lambda: project.count(READY) == 2)
    pids = [int(pid) for pid in re.findall(rf"Worker (\d+) {READY}", worker.output)]

    def both_have_ended() -> bool:
        project.write(2)
        return not any(map(is_there, pids))

    wait_for(both_have_ended)
    wait_for(lambda: project.count(READY) >= 4)
    assert project.told() == 2
    assert "starting another" not in worker.output


def test_a_worker_that_waits_because_of_a_system_check_ends_when_it_is_told(project):
    worker = project.start()
    worker.wait_for_output(READY)
    project.edit("1\n\n    queue = 1", until=WAITS)
    assert "taskapi.E007" in worker.output
    assert "Traceback" not in worker.output
    children = children_of(worker.popen.pid)
    assert children
    assert worker.stop() == 0
    wait_for(lambda: not any(map(is_there, children)))


def test_a_burst_cannot_reload(project):
    project.start("--burst")
    assert project.worker.popen.wait(30) == 1
    assert "--burst ends when no run is due, and --reload does not end" in project.worker.output
