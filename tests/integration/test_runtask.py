"""`manage.py runtask` as a process of its own: in the project's database, and on a server over REST."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.stack import Process, Stack, free_port
from tests.support.waiting import wait_for

only_sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
WAIT = 30  # seconds for a process to end

HERE_BACKEND = """
from taskapi.backends import Backend

class HereBackend(Backend):
    other_processes = False

    def enqueue(self, uuid, *, queue, run_at=None):
        pass
"""

RUNTASK = [sys.executable, "-m", "django", "runtask"]


def runtask(stack: Stack, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, once it has ended."""
    return subprocess.run(
        [*RUNTASK, *arguments],
        env=stack.environment | environment,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts the command; at the end, kills those that still run."""
    started: list[Process] = []
    names = (f"runtask-{n}" for n in count())

    def start(stack: Stack, *arguments: str, **environment: str) -> Process:
        name, log = next(names), tmp_path / "runtask.log"
        started.append(Process(name, [*RUNTASK, *arguments], stack.environment | environment, log))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


def test_a_worker_executes_it_and_its_outputs_are_printed(stack):
    ended = runtask(stack, "sum", "--input", "numbers=1", "--input", "numbers=2.5", "--output", "json")
    assert (ended.returncode, json.loads(ended.stdout)) == (0, {"sum": 3.5}), ended.stderr
    assert "(sum) succeeded after" in ended.stderr


@only_sqlite
def test_messages_go_to_standard_error(stack):
    ended = runtask(stack, "say", "--input", "n=2")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert '{"number": 0}\n{"number": 1}\n' in ended.stderr


@only_sqlite
@pytest.mark.parametrize("where", ["here", "there"])
def test_the_exit_code_says_how_it_ended(stack, where):
    there = ["--url", stack.url] if where == "there" else []
    failed = runtask(stack, "refuse", "--input", "message=No.", *there)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "task_error: No." in failed.stderr
    misfit = runtask(stack, "count", "--input", "n=many", *there)
    assert (misfit.returncode, "  n: A valid integer is required." in misfit.stderr) == (2, True), misfit.stderr
    unknown = runtask(stack, "cuont", *there)
    assert (unknown.returncode, "no task named 'cuont'" in unknown.stderr) == (2, True), unknown.stderr


@only_sqlite
@pytest.mark.parametrize("where", ["here", "there"])
def test_ctrl_c_cancels_the_run(stack, rest, launch, gate, where):
    there = ["--url", stack.url] if where == "there" else []
    running = launch(stack, "async_hold", "--input", f"gate={gate.path}", *there)
    running.wait_for_output("held")
    running.popen.send_signal(signal.SIGINT)
    assert running.popen.wait(WAIT) == 130
    assert "was cancelled after" in running.output
    gate.open()  # for the thread that the task has left


@only_sqlite
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_second_ctrl_c_leaves_the_run_alone(stack, rest, launch, gate, where):
    there = ["--url", stack.url] if where == "there" else []
    running = launch(stack, "hold", "--input", f"gate={gate.path}", *there)
    running.wait_for_output("held")
    running.popen.send_signal(signal.SIGINT)
    running.wait_for_output("Cancelling the run")
    running.popen.send_signal(signal.SIGINT)
    assert running.popen.wait(WAIT) == 130
    uuid = running.output.split()[-1]  # "… and is left alone: UUID"
    assert rest.get(f"/tasks/{UUID(uuid)}/").json()["status"] == "running"
    gate.open()
    wait_for(lambda: rest.get(f"/tasks/{uuid}/").json()["status"] not in ("pending", "running"))


@only_sqlite
@pytest.mark.parametrize("where", ["here", "there"])
def test_detached_it_prints_the_uuid(stack, rest, where):
    there = ["--url", f"{stack.url}/tasks/"] if where == "there" else []
    ended = runtask(stack, "sum", "--json", '{"numbers": [1]}', "--detach", *there)
    assert (ended.returncode, ended.stderr) == (0, "")
    address = f"/tasks/{UUID(ended.stdout.strip())}/"
    wait_for(lambda: rest.get(address).json()["status"] == "succeeded")


@only_sqlite
def test_on_a_server_the_messages_arrive_once_and_in_order(stack):
    ended = runtask(stack, "say", "--input", "n=30", "--url", stack.url)
    assert ended.returncode == 0
    assert [json.loads(line)["number"] for line in ended.stderr.splitlines()[:30]] == list(range(30))


@only_sqlite
def test_where_no_api_is_the_address_is_named(stack):
    ended = runtask(stack, "sum", "--input", "numbers=1", "--url", f"{stack.url}/nowhere/")
    assert ended.returncode == 2
    assert f"There is no Django Task API at {stack.url}/nowhere/: it answers 404." in ended.stderr


@only_sqlite
def test_a_server_that_is_not_there_is_told_of(stack):
    ended = runtask(stack, "sum", "--input", "numbers=1", "--url", f"http://127.0.0.1:{free_port()}/tasks/")
    assert ended.returncode == 1
    assert "cannot be reached" in ended.stderr


@only_sqlite
def test_a_token_that_is_refused_is_told_of(stack):
    """REST framework's defaults know names with passwords."""
    ended = runtask(stack, "sum", "--input", "numbers=1", "--url", stack.url, TASK_API_TOKEN="Basic bm9ib2R5Ong=")
    assert ended.returncode == 2
    assert "Invalid username/password. TASK_API_TOKEN was refused." in ended.stderr


@pytest.mark.parametrize("own_stack", ["sqlite"], indirect=True)
def test_a_server_that_comes_back_is_asked_again(own_stack, launch, gate):
    running = launch(own_stack, "hold", "--input", f"gate={gate.path}", "--url", own_stack.url)
    running.wait_for_output("held")
    own_stack.stop("web")
    running.wait_for_output("The server does not answer")
    own_stack.start_web()
    gate.open()
    assert running.popen.wait(WAIT) == 0, running.output
    assert running.output.count("let go") == 1


@only_sqlite
def test_a_terminal_gets_a_bar_below_the_messages(stack):
    pytest.importorskip("rich")
    leader, follower = pty.openpty()
    environment = stack.environment | {"TERM": "xterm", "COLUMNS": "100"}
    command = [*RUNTASK, "say", "--input", "n=2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=follower) as running:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 4096):
                shown += piece
        except OSError:  # nobody has it open any more
            pass
        assert running.wait(WAIT) == 0
    os.close(leader)
    text = shown.decode()
    assert '{"number": 1}' in text
    assert "\x1b[" in text
    assert "━" in text


@only_sqlite
def test_a_second_ctrl_c_ends_a_command_that_executes_a_task_which_goes_on(stack, rest, launch, gate, tmp_path):
    settings = "from tests.project.settings import *\nTASK_API_BACKEND = 'here_backend.HereBackend'\n"
    (tmp_path / "here_settings.py").write_text(settings)
    (tmp_path / "here_backend.py").write_text(HERE_BACKEND)
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    environment = {"DJANGO_SETTINGS_MODULE": "here_settings", "PYTHONPATH": path}
    running = launch(stack, "aside_hold", "--input", f"gate={gate.path}", **environment)
    running.wait_for_output("held")
    running.popen.send_signal(signal.SIGINT)
    running.wait_for_output("Cancelling the run")
    running.popen.send_signal(signal.SIGINT)
    assert running.popen.wait(WAIT) == 130
    address = f"/tasks/{running.output.split()[-1]}/"
    assert rest.get(address).json()["status"] == "cancelled"
