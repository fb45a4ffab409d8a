"""What the worker's log says of each run, and how it looks in a terminal."""

import asyncio
import logging
import os
import re
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from taskapi.exceptions import TaskError
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.protocol.states import Status
from taskapi.runs import Outcome
from taskapi.tasks import Task
from taskapi.workers import journal
from taskapi.workers.call import Interruption
from taskapi.workers.executor import Executor
from taskapi.workers.terminal import OUTCOMES, LineFormatter, TerminalFormatter, wants_colour
from tests.support.waiting import until

BOLD_GREEN, END = "\x1b[32;1m", "\x1b[0m"
UUID_OF_ALL = UUID(int=1)


class Made(Task):
    name = "made"
    max_attempts = 2
    retry_on = (ConnectionError,)
    retry_delay = 60
    inputs = {"n": IntParameter(default=0)}

    def run(self, n):
        raise self.error


class Waits(Task):
    name = "made"
    begun: asyncio.Event

    async def run(self):
        self.begun.set()
        await asyncio.Event().wait()


@pytest.fixture
def project(settings, memory_layer, queue, transactional_db, caplog):
    settings.TASK_API_BACKGROUND_TASKS = [Made]
    caplog.set_level("INFO", journal.logger.name)
    return settings


async def execute(**fields):
    """Execute a run of the task."""
    info = await TaskInfo.objects.acreate(**{"task": "made", "max_attempts": 2} | fields)
    executor = Executor(1)
    await executor.execute(info.uuid)
    await executor.close()
    return info


def lines(caplog, info):
    """What the log says of the run, without its uuid, and with the seconds as N."""
    said = [record.getMessage() for record in caplog.records if record.name == journal.logger.name]
    return [re.sub(r"\d+\.\d+ s", "N s", line.replace(str(info.uuid), "UUID")) for line in said]


@pytest.mark.parametrize(
    "case",  # what the task raises, fields of the run, and how the line ends
    [
        (None, {}, "succeeded after N s."),
        (TaskError("No such file.\nReally."), {}, "failed after N s: task_error: No such file."),
        (ValueError("of the code"), {}, "failed after N s: exception."),
        (ConnectionError(), {}, "failed after N s; attempt 2 begins in N s."),
        (
            None,
            {"inputs": {"n": "none"}},
            "was left to others after N s; its inputs do not fit the task as it is here.",
        ),
    ],
)
async def test_a_line_when_a_run_begins_and_one_when_it_ends(project, caplog, monkeypatch, case):
    error, fields, end = case
    monkeypatch.setattr(Made, "error", error, raising=False)
    if error is None:
        monkeypatch.setattr(Made, "run", lambda self, n: None)
    info = await execute(**fields)
    assert lines(caplog, info) == ["Run UUID (made) begins.", f"Run UUID (made) {end}"]


async def test_a_later_attempt_is_named(project, caplog, monkeypatch):
    monkeypatch.setattr(Made, "error", ConnectionError(), raising=False)
    info = await execute(attempt=1)
    assert lines(caplog, info) == ["Run UUID (made) begins attempt 2.", "Run UUID (made) failed after N s: exception."]


@pytest.mark.parametrize(
    ("why", "requested", "end"),
    [
        (Interruption.HANDED_BACK, False, "was handed back after N s; it is executed again."),
        (Interruption.HANDED_BACK, True, "was cancelled after N s."),  # somebody had asked it to stop
        (Interruption.CANCELLED, True, "was cancelled after N s."),
        (Interruption.TIMEOUT, False, "failed after N s: timeout: The task took longer than it may."),
    ],
)
async def test_a_line_when_a_run_is_stopped(project, caplog, why, requested, end):
    project.TASK_API_BACKGROUND_TASKS = [Waits]
    Waits.begun = asyncio.Event()
    info = await TaskInfo.objects.acreate(task="made")
    executor = Executor(1)
    executing = asyncio.ensure_future(executor.execute(info.uuid))
    await until(Waits.begun.is_set)
    await TaskInfo.objects.aupdate(cancel_requested=requested)
    executor.attempts[info.uuid, 1].interrupt(why)
    await executing
    await executor.close()
    assert lines(caplog, info)[1:] == [f"Run UUID (made) {end}"]


async def test_a_formatter_of_the_project_finds_the_fields(project, caplog, monkeypatch):
    monkeypatch.setattr(Made, "run", lambda self, n: None)
    info = await execute()
    begun, ended = (record for record in caplog.records if record.name == journal.logger.name)
    assert (begun.task, begun.uuid, begun.attempt) == ("made", info.uuid, 1)
    assert (ended.task, ended.uuid, ended.attempt, ended.outcome) == ("made", info.uuid, 1, "succeeded")
    assert ended.seconds >= 0


def test_nothing_is_formatted_if_the_level_is_off(caplog):
    caplog.set_level("WARNING", journal.logger.name)
    nothing = object()  # has no field that a line could name
    journal.begun(nothing)
    journal.ended(nothing, nothing, 0.0)
    assert caplog.records == []


# In a terminal


def painted_line(record: logging.LogRecord) -> str:
    """The line as it is in a terminal, without its time and level."""
    time_and_level = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO "
    line = TerminalFormatter().format(record)
    assert re.match(time_and_level, line)
    return re.sub(time_and_level, "", line)


def test_the_time_of_a_line_is_that_of_logging():
    formatter = LineFormatter()
    for created in (10**9 + 0.5, 10**9 + 0.75, 10**9 + 61.001, 10**9 + 0.5):
        record = logging.makeLogRecord({"msg": "x", "created": created, "msecs": created % 1 * 1000})
        assert formatter.formatTime(record) == logging.Formatter().formatTime(record)


def record_of(outcome: Outcome, **fields) -> logging.LogRecord:
    """The record of the line that says how the run ended."""
    info = TaskInfo(**{"task": "succeeded", "uuid": UUID_OF_ALL, "attempt": 1} | fields)
    kept = []
    handler = logging.Handler()
    handler.emit = kept.append
    journal.logger.addHandler(handler)
    try:
        journal.ended(info, outcome, 1.5)
    finally:
        journal.logger.removeHandler(handler)
    return kept[0]


def test_the_outcome_is_painted_and_nothing_else(caplog, monkeypatch):
    monkeypatch.delenv("DJANGO_COLORS", raising=False)
    caplog.set_level("INFO", journal.logger.name)
    record = record_of(Outcome(Status.SUCCEEDED), status="succeeded")
    painted = painted_line(record)
    assert painted == f"Run {UUID_OF_ALL} (succeeded) {BOLD_GREEN}succeeded{END} after 1.500 s."
    assert logging.Formatter("%(message)s").format(record) == f"Run {UUID_OF_ALL} (succeeded) succeeded after 1.500 s."


def test_djangos_colours_are_used(caplog, monkeypatch):
    monkeypatch.setenv("DJANGO_COLORS", "nocolor")
    caplog.set_level("INFO", journal.logger.name)
    record = record_of(Outcome(Status.SUCCEEDED), status="succeeded")
    assert "\x1b" not in painted_line(record)


def test_a_line_without_an_outcome_has_no_colour():
    record = logging.makeLogRecord({"msg": "The queue is unavailable.", "levelname": "INFO"})
    assert painted_line(record) == "The queue is unavailable."


def test_every_outcome_has_a_phrase_and_a_colour(caplog):
    caplog.set_level("INFO", journal.logger.name)
    for status in ("succeeded", "failed", "cancelled"):
        assert record_of(Outcome(Status(status)), status=status).outcome == status
    later = Outcome(Status.PENDING, run_at=None)
    for reason in type(later.reason):
        if reason.value != "worker lost":  # nobody is there to say it: the log of the host that takes it back does
            assert record_of(later._replace(reason=reason), status="pending").outcome in OUTCOMES
    assert record_of(later._replace(refused=True), status="pending").outcome == "left"


def test_only_a_terminal_gets_colours_and_only_if_its_user_wants_them(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    leader, follower = os.openpty()
    with (tmp_path / "log").open("w") as file, os.fdopen(follower, "w") as terminal:
        assert (wants_colour(file), wants_colour(terminal)) == (False, True)
        assert (wants_colour(file, True), wants_colour(terminal, False)) == (True, False)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not wants_colour(terminal)
    os.close(leader)


def test_the_pause_before_the_next_attempt_is_never_negative(caplog):
    caplog.set_level("INFO", journal.logger.name)
    past = timezone.now() - timedelta(seconds=5)
    assert record_of(Outcome(Status.PENDING, run_at=past), status="pending").getMessage().endswith("begins in 0.0 s.")
