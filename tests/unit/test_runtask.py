"""`manage.py runtask`, where this process executes the runs too; the integration tests have real servers."""

import asyncio
import io
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.db import connection

from taskapi import events
from taskapi.backends import get_backend
from taskapi.events.in_process import InProcessEvents
from taskapi.exceptions import TaskError
from taskapi.management.running import following, remote
from taskapi.management.running.display import Plain, Rich, State, as_text, choose
from taskapi.management.running.inputs import Unreadable, read_inputs
from taskapi.models import TaskInfo
from taskapi.params import (
    BooleanParameter,
    DictParameter,
    FileParameter,
    IntParameter,
    JSONParameter,
    ListParameter,
    NumberParameter,
    Parameter,
    StringParameter,
)
from taskapi.tasks import Task
from taskapi.workers.host import Host
from tests.support.backends import ListBackend


class Count(Task):
    name = "count"
    inputs = {"n": IntParameter(min_value=1)}
    outputs = {"counted": IntParameter(), "how": StringParameter()}

    def run(self, n):
        for number in self.track(range(n)):
            self.add_message(f"item {number}")
        return {"counted": n, "how": "fast"}


class Refuse(Task):
    name = "refuse"

    def run(self):
        raise TaskError("Not today.")


class Patient(Task):
    """Works until it is told to stop."""

    name = "patient"
    inputs = {"stubborn": BooleanParameter(default=False)}
    going_on: threading.Event

    def run(self, stubborn):
        self.add_message("begun")
        if stubborn:
            self.going_on.wait(20)
        while not stubborn:
            self.inc_progress()


class Engine(threading.Thread):
    """Executes what is queued, on an event loop of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.queue = get_backend()  # as it is now: each test has one of its own
        self.ending = threading.Event()

    def run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        executing = set()
        async with Host() as host:
            while not self.ending.is_set():
                while self.queue.jobs:
                    executing.add(asyncio.create_task(host.execute(self.queue.jobs.pop(0).uuid)))
                await asyncio.sleep(0.01)
            if executing:
                await asyncio.wait(executing)


@pytest.fixture
def project(settings, queue, transactional_db):
    settings.TASK_API_BACKGROUND_TASKS = [Count, Refuse, Patient]
    Patient.going_on = threading.Event()
    with events.using(InProcessEvents()):
        yield settings


@pytest.fixture
def engine(project):
    engine = Engine()
    engine.start()
    yield engine
    Patient.going_on.set()
    engine.ending.set()
    engine.join(30)
    assert not engine.is_alive()


class Printed(io.StringIO):
    """What the command prints, and what happens when it prints a line."""

    def __init__(self, **reactions) -> None:
        super().__init__()
        self.reactions = reactions

    def write(self, text: str) -> int:
        for words in list(self.reactions):
            if words in text:
                self.reactions.pop(words)()
        return super().write(text)


def run(*arguments: str, **reactions) -> tuple[int, str, str]:
    """The exit code, and what was printed to standard output and to standard error."""
    out, err = io.StringIO(), Printed(**reactions)
    try:
        call_command("runtask", *arguments, stdout=out, stderr=err, no_color=True)
    except CommandError as error:
        return error.returncode, out.getvalue(), f"{err.getvalue()}{error}"
    return 0, out.getvalue(), err.getvalue()


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# How it ends


def test_a_run_that_succeeds(engine):
    code, out, err = run("count", "--input", "n=3")
    assert (code, out) == (0, "counted: 3\nhow: fast\n")
    assert err.splitlines()[:3] == ["item 0", "item 1", "item 2"]
    assert "(count) succeeded after" in err


def test_outputs_as_json_are_all_that_goes_to_standard_output(engine):
    code, out, _ = run("count", "--json", '{"n": 2}', "--output", "json")
    assert (code, json.loads(out)) == (0, {"counted": 2, "how": "fast"})


def test_a_run_that_fails(engine):
    code, out, err = run("refuse")
    assert (code, out) == (1, "")
    assert err.endswith("s: task_error: Not today.")


def test_with_verbosity_0_only_outputs_and_errors_are_printed(engine):
    assert run("count", "--input", "n=3", "-v", "0") == (0, "counted: 3\nhow: fast\n", "")
    code, out, err = run("refuse", "-v", "0")
    assert (code, out, "Not today." in err) == (1, "", True)


def test_ctrl_c_cancels_the_run(engine):
    code, _, err = run("patient", begun=ctrl_c)
    assert code == 130
    assert "Cancelling the run. Ctrl-C again leaves it alone." in err
    assert "was cancelled after" in err
    assert TaskInfo.objects.get().status == "cancelled"


def test_a_second_ctrl_c_leaves_the_run_alone(engine):
    code, _, err = run("patient", "--input", "stubborn=true", begun=ctrl_c, Cancelling=ctrl_c)
    info = TaskInfo.objects.get()
    assert code == 130
    assert err.endswith(f"The run was asked to stop, and is left alone: {info.uuid}")
    assert info.status == "running"


def test_a_run_that_ends_all_the_same_after_ctrl_c_has_its_own_outcome(engine):
    code, _, err = run("patient", "--input", "stubborn=true", begun=ctrl_c, Cancelling=Patient.going_on.set)
    assert code == 0
    assert "succeeded after" in err


def test_ctrl_c_is_pythons_own_again_afterwards(engine):
    before = signal.getsignal(signal.SIGINT)
    run("count", "--input", "n=1")
    assert signal.getsignal(signal.SIGINT) in (before, signal.default_int_handler)


def test_a_run_that_is_deleted_is_told_of(engine):
    def delete() -> None:
        TaskInfo.objects.all().delete()
        connection.close()

    code, _, err = run("patient", begun=threading.Thread(target=delete).start)
    assert (code, "The run was deleted before it had ended." in err) == (1, True)


def test_detached_it_prints_the_uuid_and_does_not_wait(project):
    code, out, err = run("count", "--input", "n=3", "--detach")
    assert (code, err) == (0, "")
    assert TaskInfo.objects.get(uuid=UUID(out.strip())).status == "pending"


def test_a_run_that_no_worker_takes_is_told_of_with_the_remedy(project, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE", 0.01)
    monkeypatch.setattr(ListBackend, "worker_queue", lambda self, queues: None)
    monkeypatch.setattr(Count, "queue", "slow")
    code, _, err = run("count", "--input", "n=3", **{"No worker has taken": ctrl_c})
    assert code == 130  # a run that waits is cancelled at once
    assert "If none is running, start one: python manage.py taskworker --queue slow" in err
    assert TaskInfo.objects.get().status == "cancelled"


def test_a_backend_that_no_taskworker_serves_is_named(project, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE", 0.01)
    _, _, err = run("count", "--input", "n=3", **{"Nothing executes": ctrl_c})
    assert "TASK_API_BACKEND is 'tests.support.backends.ListBackend'" in err


class HereBackend(ListBackend):
    """Executes runs where they are started, as LocalBackend does."""

    other_processes = False


@pytest.fixture
def here(project):
    project.TASK_API_BACKEND = f"{__name__}.HereBackend"
    return project


def test_a_backend_without_other_processes_has_it_executed_here(here):
    code, out, err = run("count", "--input", "n=3")
    assert (code, out) == (0, "counted: 3\nhow: fast\n")
    assert err.splitlines()[:3] == ["item 0", "item 1", "item 2"]


def test_detached_it_is_left_to_a_server(here):
    code, out, err = run("count", "--input", "n=3", "--detach")
    assert TaskInfo.objects.get(uuid=UUID(out.strip())).status == "pending"
    assert (code, err) == (0, "A server process of the project executes the run; this one ends.\n")


def test_other_runs_are_not_executed_here(here):
    other = Count.start({"n": 1})
    assert run("count", "--input", "n=3")[0] == 0
    other.refresh_from_db()
    assert other.status == "pending"


def test_a_run_that_is_executed_here_is_tried_again(here, monkeypatch):
    monkeypatch.setattr(Refuse, "retry_on", (TaskError,))
    monkeypatch.setattr(Refuse, "retry_delay", 0.01)
    monkeypatch.setattr(Refuse, "max_attempts", 2)
    assert run("refuse")[0] == 1
    assert TaskInfo.objects.get().attempt == 2


def test_ctrl_c_cancels_a_run_that_is_executed_here(here):
    code, _, err = run("patient", begun=ctrl_c)
    assert (code, "was cancelled after" in err) == (130, True)


def test_a_run_that_is_executed_here_is_handed_back_by_a_second_ctrl_c(here, monkeypatch):
    """Two at once: the second is there before the task has noticed the first."""
    monkeypatch.setattr(TaskInfo, "cancel", lambda info: None)
    code, _, err = run("patient", begun=ctrl_c, Cancelling=ctrl_c)
    info = TaskInfo.objects.get()
    assert (code, info.status, info.handed_back) == (130, "pending", 1)
    assert err.endswith(f"The run was asked to stop, and is left alone: {info.uuid}")


# What it is given


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cuont"], "There is no task named 'cuont'. Did you mean 'count'?"),
        (["zzz"], "The tasks of this project are: count, patient, refuse."),
        (["count"], "The inputs do not fit the task 'count'.\n  n: This field is required."),
        (["count", "--input", "n=0"], "  n: Ensure this value is greater than or equal to 1."),
        (["count", "--input", "n=many"], "  n: A valid integer is required."),
        (["count", "--input", "n"], "--input takes NAME=VALUE"),
        (["count", "--input", "n=1", "--input", "n=2"], "given 2 times; only an input that is a list takes several"),
        (["count", "--json", "[1]"], "--json takes the inputs as a JSON object"),
        (["count", "--json", "{n: 1}"], "--json takes the inputs as a JSON object"),
        (["count", "--url", "example.org"], "--url takes an address such as https://example.org/tasks/"),
    ],
)
def test_what_cannot_be_started_is_told_of_and_leaves_no_run(project, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not TaskInfo.objects.exists()


def test_a_project_without_tasks_is_told_which_setting_names_them(project):
    project.TASK_API_BACKGROUND_TASKS = []
    assert "TASK_API_BACKGROUND_TASKS names no task." in run("count")[2]


def test_an_unknown_input_is_told_of(project):
    code, _, err = run("count", "--input", "n=1", "--input", "m=2")
    assert code == 2
    assert "  m: " in err


def test_inputs_are_read_from_standard_input(engine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"n": 2}'))
    assert run("count", "--json", "-")[1] == "counted: 2\nhow: fast\n"


class Weigh(Task):
    name = "weigh"
    inputs = {
        "file": FileParameter(),
        "more": ListParameter(FileParameter(), required=False),
        "text": StringParameter(),
    }
    outputs = {"seen": JSONParameter()}

    def run(self, file, text, more=()):
        return [[one.name, one.size] for one in (file, *more)] + [text]


@pytest.fixture
def weighing(here, tmp_path):
    here.TASK_API_BACKGROUND_TASKS = [Weigh]
    here.MEDIA_ROOT = tmp_path / "media"
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_bytes(name.encode() * 10)
    return tmp_path


def test_files_are_given_by_their_paths(weighing):
    a, b = f"@{weighing / 'a.csv'}", f"@{weighing / 'b.csv'}"
    words = ["--input", f"file={a}", "--input", f"more={a}", "--input", f"more={b}", "--input", "text=@text"]
    code, out, err = run("weigh", *words, "--output", "json")
    assert code == 0, err
    assert json.loads(out) == {"seen": [["a.csv", 10], ["a.csv", 10], ["b.csv", 10], "@text"]}


def test_a_file_that_cannot_be_read_is_told_of(weighing):
    code, _, err = run("weigh", "--input", f"file=@{weighing / 'c.csv'}", "--input", "text=x")
    assert code == 2
    assert "c.csv' cannot be read: " in err
    assert not TaskInfo.objects.exists()


def test_with_an_address_no_files_are_sent(weighing):
    given = ["--input", f"file=@{weighing / 'a.csv'}", "--input", "text=x"]
    code, _, err = run("weigh", *given, "--url", "http://127.0.0.1:1/")
    assert code == 2
    assert "Upload the file" in err


class Colour(Parameter):
    """A type of a project's own, which is a string."""

    def json_schema(self):
        return {"type": "string"}


@pytest.mark.parametrize(
    ("parameter", "words", "value"),
    [
        (IntParameter(), ["6"], "6"),  # the parameter makes a number of it
        (StringParameter(), ["6"], "6"),
        (StringParameter(), ["[1]"], "[1]"),
        (StringParameter(), ["a=b"], "a=b"),
        (StringParameter(), [""], ""),
        (ListParameter(NumberParameter()), ["1"], ["1"]),
        (ListParameter(NumberParameter()), ["1", "2"], ["1", "2"]),
        (ListParameter(NumberParameter()), ["[1, 2]"], [1, 2]),
        (ListParameter(StringParameter()), ["a", "[1]"], ["a", "[1]"]),
        (ListParameter(), ["1", "a", '{"b": 2}'], [1, "a", {"b": 2}]),
        (DictParameter(), ['{"a": 1}'], {"a": 1}),
        (JSONParameter(), ["null"], None),
        (JSONParameter(), ["1.5"], 1.5),
        (JSONParameter(), ["plain words"], "plain words"),
        (Parameter(), ["true"], True),
        (Colour(), ["123456"], "123456"),
    ],
)
def test_inputs_are_typed_by_the_parameters(parameter, words, value):
    assert read_inputs({"x": parameter}, [f"x={word}" for word in words], None) == {"x": value}


@pytest.mark.parametrize(
    ("words", "value"), [(["6"], "6"), (["a", "b"], ["a", "b"]), (['{"a": 1}'], {"a": 1}), (["[draft]"], "[draft]")]
)
def test_inputs_of_a_task_that_only_the_server_knows_are_left_to_it(words, value):
    assert read_inputs(None, [f"x={word}" for word in words], None) == {"x": value}


def test_an_input_goes_before_what_the_json_says():
    assert read_inputs({"x": IntParameter()}, ["x=1"], '{"x": 2, "y": 3}') == {"x": "1", "y": 3}


# What is shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_in_a_terminal_is_written_over_and_what_is_told_stays():
    terminal = Terminal()
    plain = Plain(OutputWrapper(terminal))
    plain.show(State("count"))
    plain.show(State("count", "running", 1, 3, 10))
    plain.tell("hello")
    plain.close()
    clear = "\r\x1b[K"
    assert terminal.getvalue() == (
        f"{clear}count waits for a worker{clear}count running 3/10 (30 %){clear}hello\n"
        f"{clear}count running 3/10 (30 %){clear}"
    )


def test_what_is_no_terminal_gets_whole_lines_alone():
    file = io.StringIO()
    plain = Plain(OutputWrapper(file))
    plain.show(State("count", "running", 1, 3, 10))
    plain.tell("hello")
    plain.close()
    assert file.getvalue() == "hello\n"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State("count", "running", 1, 3), "count running 3"),
        (State("count", "running", 1, 30, 10), "count running 30/10 (100 %)"),
        (State("count", "running", 1, None, 10), "count running"),
        (State("count", "running", 1, 3, 0), "count running 3"),
        (State("count", "pending", 1), "count waits to be tried again"),
    ],
)
def test_a_line_says_what_is_known(state, line):
    terminal = Terminal()
    Plain(OutputWrapper(terminal)).show(state)
    assert terminal.getvalue() == f"\r\x1b[K{line}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hé\n", "hé\n"),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\rb"),
        (None, "null"),
    ],
)
def test_a_message_steers_no_terminal(value, text):
    assert as_text(value) == text


def test_the_bar_of_rich_moves_below_the_messages():
    pytest.importorskip("rich")
    terminal = Terminal()
    bar = Rich(terminal)
    bar.open()
    bar.show(State("count"))
    bar.show(State("count", "running", 1, 3, 10))
    bar.tell("[bold]a message")
    bar._bars.refresh()
    bar.show(State("count", "running", 2))
    bar.close()
    shown = terminal.getvalue()
    assert "[bold]a message" in shown
    assert "count running" in shown
    assert "3/10" in shown
    assert shown.rfind("3/10") > shown.find("[bold]a message")


def test_without_rich_a_terminal_gets_the_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)  # as if it were not installed
    assert type(choose(OutputWrapper(Terminal()), verbosity=1, colour=None)) is Plain


def test_rich_is_for_terminals_alone():
    pytest.importorskip("rich")
    assert type(choose(OutputWrapper(Terminal()), verbosity=1, colour=None)) is Rich
    assert type(choose(OutputWrapper(io.StringIO()), verbosity=1, colour=None)) is Plain


def test_the_hint_of_a_server_is_told_once():
    told = []
    display = Plain(OutputWrapper(io.StringIO()))
    display.tell = told.append
    follower = following.Follower("count", display)
    for _ in range(2):
        follower.become({"status": "pending", "hint": {"code": "no_worker", "message": "No worker takes the queue."}})
    assert told == ["No worker takes the queue."]


def test_a_later_attempt_begins_with_no_progress():
    shown = []
    display = Plain(OutputWrapper(io.StringIO()))
    display.show = shown.append
    follower = following.Follower("count", display)
    follower.become({"status": "running", "attempt": 1, "progress": 5, "target": 10})
    follower.become({"type": "status", "status": "running", "attempt": 2})
    assert shown[-1] == State("count", "running", 2)


# On a server


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://example.org", "https://example.org/tasks/"),
        ("https://example.org/", "https://example.org/tasks/"),
        ("https://example.org/api/tasks", "https://example.org/api/tasks/"),
        ("http://127.0.0.1:8000/tasks/?a=1#b", "http://127.0.0.1:8000/tasks/"),
    ],
)
def test_the_address_of_the_api(given, used):
    assert remote.Server(given).url == used


@pytest.mark.parametrize("url", ["example.org", "ftp://example.org/tasks/", "file:///etc/passwd", "http://"])
def test_what_is_no_address_of_the_web_is_refused(url):
    with pytest.raises(Unreadable, match="--url takes an address"):
        remote.Server(url)


@pytest.mark.parametrize(
    ("token", "header"),
    [
        (None, {}),
        (" ", {}),
        ("0123", {"Authorization": "Token 0123"}),
        ("Bearer 0123", {"Authorization": "Bearer 0123"}),
    ],
)
def test_the_token_of_the_environment(monkeypatch, token, header):
    monkeypatch.delenv(remote.TOKEN, raising=False)
    if token is not None:
        monkeypatch.setenv(remote.TOKEN, token)
    assert remote._authorization() == header


async def test_a_server_that_is_silent_keeps_nobody_at_the_end():
    going_on = threading.Event()
    waiting = asyncio.ensure_future(remote._apart(going_on.wait, 20))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    going_on.set()  # its answer goes nowhere


async def test_what_a_call_apart_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        await remote._apart(lambda: 1 / 0)
    assert await remote._apart(lambda: 1) == 1
