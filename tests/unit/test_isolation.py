"""Tasks in a process of their own: real processes, started by an executor in this one."""

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.workers.call import Interruption
from taskapi.workers.executor import Executor
from taskapi.workers.isolation import parent
from tests.support.processes import is_there
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory_layer", "queue")]

KINDS_OF_PATIENT = ["alone_patient", "async_alone_patient"]


@pytest.fixture
async def executor():
    executor = Executor(4)
    yield executor
    assert not executor.attempts
    await executor.close()


async def execute(executor, task, inputs=None, **fields):
    """The run as it ended."""
    info = await TaskInfo.objects.acreate(task=task, inputs=inputs or {}, **fields)
    await executor.execute(info.uuid)
    await info.arefresh_from_db()
    return info


@asynccontextmanager
async def under_way(executor, task, path):
    """A run whose task has left its process ids; afterwards it has to end, whatever the test has done to it."""
    info = await TaskInfo.objects.acreate(task=task, inputs={"pid_file": str(path)})
    executing = asyncio.ensure_future(executor.execute(info.uuid))
    pids = await until(lambda: read_pids(path))
    try:
        yield info, pids
    finally:
        executor.interrupt_all(Interruption.CANCELLED)
        async with asyncio.timeout(20):
            await executing


def read_pids(path):
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


async def becomes(info, look):
    """Wait until the row of the run is as expected."""
    async with asyncio.timeout(20):
        while not look():
            await info.arefresh_from_db()


async def messages(info):
    return [body async for body in info.log.order_by("index").values_list("body", flat=True)]


# How it goes


@pytest.mark.parametrize("task", ["alone", "async_alone"])
async def test_a_task_runs_in_another_process_and_says_what_it_says_here(executor, task):
    info = await execute(executor, task)
    assert (info.status, info.error, info.attempt) == ("succeeded", None, 1)
    assert info.outputs["pid"] not in (os.getpid(), 0)
    assert (info.progress, info.target) == (3, 3)
    assert await messages(info) == [{"number": number, "attempt": 1} for number in range(3)]


async def test_a_process_ends_with_its_run(executor):
    info = await execute(executor, "alone")
    await until(lambda: not is_there(info.outputs["pid"]))


async def test_many_messages_arrive_all_and_in_order(executor):
    info = await execute(executor, "alone", {"n": 5000})
    assert [message["number"] for message in await messages(info)] == list(range(5000))
    assert (info.progress, info.target) == (5000, 5000)


async def test_what_a_task_says_is_recorded_while_it_runs(executor, tmp_path):
    async with under_way(executor, "alone_patient", tmp_path / "pids") as (info, _):
        await becomes(info, lambda: info.message_count == 1 and (info.progress or 0) > 10)


async def test_runs_are_in_processes_of_their_own_at_the_same_time(executor, tmp_path):
    async with (
        under_way(executor, "alone_patient", tmp_path / "one") as (_, one),
        under_way(executor, "alone_patient", tmp_path / "two") as (_, two),
    ):
        assert len({os.getpid(), *one, *two}) == 3


async def test_a_task_knows_its_user(executor):
    user = await User.objects.acreate(username="ada")
    info = await execute(executor, "alone_for_user", user=user)
    assert info.outputs == {"user": "ada"}


@pytest.mark.parametrize("task", ["alone_late", "async_alone_late"])
async def test_a_timeout_counts_from_the_tasks_first_line_and_not_from_the_start_of_its_process(executor, task):
    info = await execute(executor, task, {"n": 1})
    assert (info.status, info.error) == ("succeeded", None)


async def test_a_process_that_takes_long_to_end_keeps_nobody_waiting(settings, monkeypatch):
    monkeypatch.setattr(parent, "KILL_AFTER", 600)
    settings.TASK_API_BACKGROUND_TASKS = [*settings.TASK_API_BACKGROUND_TASKS, Quick]
    executor = Executor(1)
    first = await execute(executor, "alone_lingers")
    pid = first.outputs["pid"]
    try:
        async with asyncio.timeout(30):
            info = await execute(executor, "quick")
        assert (info.status, info.error) == ("succeeded", None)
        assert is_there(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        await executor.close()
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "taskapi-process"])


class Quick(Task):
    """Needs a thread of the worker, at once."""

    name = "quick"
    timeout = 20

    def run(self):
        self.add_message("begun")


# How it fails


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("task_error", {"code": "task_error", "message": "There is nothing to be done."}),
        ("exception", {"code": "exception", "message": "The task failed."}),
        ("sys.exit", {"code": "exception", "message": "The task failed."}),
        ("invalid_outputs", {"code": "invalid_outputs"}),
    ],
)
async def test_a_failure_is_what_it_would_be_in_the_worker(executor, how, error):
    info = await execute(executor, "alone_fails", {"how": how})
    assert info.status == "failed"
    assert info.error.items() >= error.items()
    assert ("swordfish" in info.traceback) == (how == "exception")
    assert await messages(info) == ["before"]


async def test_an_exception_of_retry_on_is_tried_again(executor):
    before = timezone.now()
    info = await execute(executor, "alone_fails", {"how": "retry_on"})
    assert (info.status, info.attempt) == ("pending", 1)
    assert (info.run_at - before).total_seconds() >= 100


async def test_a_process_that_ends_without_a_word_is_a_lost_worker(executor, caplog):
    info = await execute(executor, "alone_fails", {"how": "os._exit"}, max_attempts=2)
    assert (info.status, info.attempt) == ("pending", 1)
    assert f"The process of run {info.uuid} ended with 3" in caplog.text
    await executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.attempt, info.error["code"]) == ("failed", 2, "process_lost")


async def test_a_process_that_is_killed_is_a_lost_worker(executor, tmp_path):
    async with under_way(executor, "stuck", tmp_path / "pids") as (info, (pid, child)):
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not executor.attempts)
        await info.arefresh_from_db()
        assert (info.status, info.attempt) == ("pending", 1)
        await until(lambda: not is_there(child))


async def test_a_process_that_cannot_be_started_is_a_failure(executor, monkeypatch):
    def start(process):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(parent.fresh.Process, "start", start)
    info = await execute(executor, "alone")
    assert (info.status, info.error["code"]) == ("failed", "exception")
    assert "no more processes" in info.traceback


# How it is stopped


@pytest.mark.parametrize("task", KINDS_OF_PATIENT)
@pytest.mark.parametrize(
    ("why", "status"),
    [(Interruption.CANCELLED, "cancelled"), (Interruption.TIMEOUT, "failed"), (Interruption.HANDED_BACK, "pending")],
)
async def test_a_task_that_is_told_to_stop_can_clean_up(executor, tmp_path, task, why, status):
    async with under_way(executor, task, tmp_path / "pids") as (info, (pid,)):
        executor.attempts[info.uuid, 1].interrupt(why)
        await until(lambda: not executor.attempts)
        await info.arefresh_from_db()
        assert info.status == status
        assert await messages(info) == ["begun", "cleaned up"]
        await until(lambda: not is_there(pid))


@pytest.mark.parametrize(
    ("why", "status"),
    [(Interruption.CANCELLED, "cancelled"), (Interruption.HANDED_BACK, "pending"), (Interruption.LOST, "pending")],
)
async def test_a_task_that_does_not_stop_is_killed_with_all_that_it_has_started(executor, tmp_path, why, status):
    async with under_way(executor, "stuck", tmp_path / "pids") as (info, pids):
        assert all(is_there(pid) for pid in pids)
        executor.attempts[info.uuid, 1].interrupt(why)
        await until(lambda: not executor.attempts)
        await info.arefresh_from_db()
        assert info.status == status
        await until(lambda: not any(is_there(pid) for pid in pids))


async def test_a_timeout_ends_a_task_that_calls_nothing(executor, tmp_path, caplog):
    info = await execute(executor, "stuck_for_a_while", {"pid_file": str(tmp_path / "pids")})
    assert (info.status, info.error["code"]) == ("failed", "timeout")
    assert "did not within" not in caplog.text, "it is ended"
    for pid in read_pids(tmp_path / "pids"):
        await until(lambda pid=pid: not is_there(pid))


async def test_a_service_manager_that_signals_every_process_ends_none_before_its_time(executor, tmp_path):
    async with under_way(executor, "alone_patient", tmp_path / "pids") as (info, (pid,)):
        os.kill(pid, signal.SIGTERM)
        await info.arefresh_from_db()
        before = info.progress or 0
        await becomes(info, lambda: (info.progress or 0) > before)


async def test_a_run_that_is_stopped_before_its_process_is_up_never_begins(executor, tmp_path):
    pids = tmp_path / "pids"
    info = await TaskInfo.objects.acreate(task="alone_patient", inputs={"pid_file": str(pids)})
    executing = asyncio.ensure_future(executor.execute(info.uuid))
    attempt = await until(lambda: executor.attempts.get((info.uuid, 1)))
    attempt.interrupt(Interruption.CANCELLED)
    await executing
    await info.arefresh_from_db()
    assert info.status == "cancelled"


async def test_a_run_that_begins_while_its_worker_ends_is_handed_back(executor, tmp_path):
    executor.interrupt_all(Interruption.HANDED_BACK)
    async with asyncio.timeout(20):
        info = await execute(executor, "alone_patient", {"pid_file": str(tmp_path / "pids")})
    assert (info.status, info.attempt, info.error) == ("pending", 1, None)


# A run whose worker was lost: its task may have ended the worker


async def test_a_run_that_has_lost_a_worker_runs_in_a_process_of_its_own(executor):
    before = await execute(executor, "whereabouts")
    again = await execute(executor, "whereabouts", attempt=1, lost=1)
    assert (before.status, before.outputs) == ("succeeded", {"pid": os.getpid()})
    assert (again.status, again.attempt) == ("succeeded", 2)
    assert again.outputs["pid"] != os.getpid()


async def test_a_task_that_a_new_process_does_not_know_runs_here(executor, settings):
    """It has the settings of the module; a test has added to those of this process."""
    here = type("Here", (Task,), {"name": "here", "outputs": {"pid": IntParameter()}, "run": lambda self: os.getpid()})
    settings.TASK_API_BACKGROUND_TASKS = [here]
    info = await execute(executor, "here", attempt=1, lost=1)
    assert (info.status, info.outputs) == ("succeeded", {"pid": os.getpid()})


async def test_a_task_that_a_new_process_does_not_know_can_be_stopped_here(executor, settings):
    begun = threading.Event()

    def run(self):
        begun.set()
        while True:
            self.check_cancelled()

    settings.TASK_API_BACKGROUND_TASKS = [type("Here", (Task,), {"name": "here", "run": run})]
    info = await TaskInfo.objects.acreate(task="here", attempt=1, lost=1)
    executing = asyncio.ensure_future(executor.execute(info.uuid))
    await until(begun.is_set)
    executor.interrupt_all(Interruption.CANCELLED)
    await executing
    await info.arefresh_from_db()
    assert info.status == "cancelled"
