"""What a run does is the same whatever executes it: each test is a row, and each backend a column.

A new backend joins by an Engine below. A cell that does not apply to it is named there, with the reason that
docs/backends.md gives.
"""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from taskapi.engines import local, serving
from taskapi.events import channel_layer
from taskapi.events.following import Following, find_run
from taskapi.exceptions import TaskCancelled, TaskError, TaskFailed
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.runs import EARLY
from taskapi.tasks import Task
from taskapi.workers.worker import Worker
from tests.integration.contract.guarantees import check_stream, messages
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]

ENDED = "`start()` returns when the run has ended"
NOT_WAITED_FOR = "a run never waits: a `delay` is not waited for"


class Engine:
    """What executes the runs of a backend, and can be started again after it was stopped."""

    backend: str
    inline = False  # runs are executed in `start()`
    without: dict[str, str] = {}  # the tests that do not apply, and why
    server: str | None = None  # the fixture of the server that it needs

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Hand back what runs."""


class Arq(Engine):
    backend = "taskapi.backends.arq.ArqBackend"
    server = "valkey"

    async def start(self):
        self.worker = Worker(grace=0)
        self.working = asyncio.ensure_future(self.worker.main())
        await until(lambda: hasattr(self.worker, "_queue"))

    async def stop(self):
        self.worker.stop()
        async with asyncio.timeout(30):
            await self.working


class Local(Engine):
    backend = "taskapi.backends.local.LocalBackend"

    async def start(self):
        serving.serve()

    async def stop(self):
        await asyncio.to_thread(local.stop)


class Immediate(Engine):
    backend = "taskapi.backends.immediate.ImmediateBackend"
    inline = True
    without = {
        "test_a_pending_run_is_cancelled": NOT_WAITED_FOR,
        "test_a_running_task_is_cancelled": ENDED,
        "test_a_run_begins_when_it_is_due": NOT_WAITED_FOR,
        "test_a_run_goes_on_after_a_restart_of_what_executes_it": ENDED,
    }


ENGINES = {"arq": Arq, "local": Local, "immediate": Immediate}


@pytest.fixture(params=ENGINES)
async def engine(request, settings, monkeypatch, transactional_db):
    engine = ENGINES[request.param]()
    why = engine.without.get(request.node.originalname)
    if why is not None:
        pytest.skip(f"{request.param}: {why}")
    monkeypatch.setattr("taskapi.models.LAST_LOOK", 0.02)  # a test waits for many results
    monkeypatch.setattr("taskapi.workers.worker.POLL_INTERVAL", 0.05)  # and for a worker to end
    settings.CHANNEL_LAYERS = {}  # as in a project that configures no layer
    settings.TASK_API_BACKEND = engine.backend
    settings.TASK_API_BACKGROUND_TASKS = [task for pair in TASKS for task in pair]
    if engine.server is not None:
        request.getfixturevalue(engine.server)
    Double.executed.clear()
    Steps.going_on.clear()
    if engine.inline:
        Steps.going_on.set()  # nobody could let it go on
    await engine.start()
    yield engine
    await engine.stop()
    if engine.server is not None:
        await channel_layer.get_layer().flush()


def test_the_page_names_the_reason_of_each_cell_that_does_not_apply():
    said = " ".join((ROOT / "docs" / "backends.md").read_text().split())
    for engine in ENGINES.values():
        for test, reason in engine.without.items():
            assert test in globals(), "there is no such row"
            assert reason in said


# Each task is there twice: with a sync `run`, and with an async one


class Double(Task):
    name = "double"
    inputs = {"n": IntParameter()}
    outputs = {"n": IntParameter()}
    executed = []

    def run(self, n):
        self.executed.append(n)
        return 2 * n


class AsyncDouble(Double):
    name = "async_double"

    async def run(self, n):
        return Double.run(self, n)


class Fails(Task):
    name = "fails"

    def run(self):
        raise TaskError("There is no paper.")


class AsyncFails(Fails):
    name = "async_fails"

    async def run(self):
        Fails.run(self)


class Steps(Task):
    """Takes three steps, and waits for the test before the last."""

    name = "steps"
    going_on = threading.Event()

    def run(self):
        self.begin()
        self.going_on.wait(30)
        self.end()

    def begin(self):
        self.set_target(3)
        for number in range(2):
            self.add_message({"step": number})
            self.inc_progress()

    def end(self):
        self.add_message({"step": 2})
        self.inc_progress()


class AsyncSteps(Steps):
    name = "async_steps"

    async def run(self):
        self.begin()
        await asyncio.to_thread(self.going_on.wait, 30)
        self.end()


class Patient(Task):
    """Works until it is stopped; its second attempt returns."""

    name = "patient"
    outputs = {"attempt": IntParameter()}

    def run(self):
        self.add_message(self.info.attempt)
        while self.info.attempt == 1:
            self.check_cancelled()
            time.sleep(0.01)
        return self.info.attempt


class AsyncPatient(Patient):
    name = "async_patient"

    async def run(self):
        self.add_message(self.info.attempt)
        if self.info.attempt == 1:
            await asyncio.Event().wait()
        return self.info.attempt


class Slow(Patient):
    name = "slow"
    timeout = 0.2


class AsyncSlow(AsyncPatient):
    name = "async_slow"
    timeout = 0.2


class Flaky(Task):
    """Its first attempt fails."""

    name = "flaky"
    outputs = {"attempt": IntParameter()}
    retry_on = (ConnectionError,)
    retry_delay = 0.05

    def run(self):
        if self.info.attempt == 1:
            raise ConnectionError
        return self.info.attempt


class AsyncFlaky(Flaky):
    name = "async_flaky"

    async def run(self):
        return Flaky.run(self)


TASKS = (
    (Double, AsyncDouble),
    (Fails, AsyncFails),
    (Steps, AsyncSteps),
    (Patient, AsyncPatient),
    (Slow, AsyncSlow),
    (Flaky, AsyncFlaky),
)


def both(*pair):
    return pytest.mark.parametrize("task", pair, ids=["sync", "async"])


async def becomes(info, **fields):
    """Wait until the row has these values."""
    async with asyncio.timeout(30):
        while {name: getattr(info, name) for name in fields} != fields:
            await asyncio.sleep(0.01)
            await info.arefresh_from_db()


# The rows of the matrix


@both(Double, AsyncDouble)
async def test_a_run_succeeds(engine, task):
    info = await task.astart({"n": 21})
    assert await info.aresult(timeout=30) == {"n": 42}
    assert (info.status, info.attempt, info.error) == ("succeeded", 1, None)


@both(Fails, AsyncFails)
async def test_a_run_fails(engine, task):
    info = await task.astart()
    with pytest.raises(TaskFailed, match="There is no paper"):
        await info.aresult(timeout=30)
    assert (info.status, info.attempt) == ("failed", 1)
    assert info.error == {"code": "task_error", "message": "There is no paper."}


@both(Steps, AsyncSteps)
async def test_progress_and_messages_arrive_in_order(engine, task):
    frames, ended = [], asyncio.Event()

    async def send(text):
        frames.append(json.loads(text))
        if frames[-1]["type"] == "finished":
            ended.set()

    async with Following(send) as following:
        info = await task.astart()
        await following.follow(info.uuid, {"type": "snapshot"}, find_run)
        Steps.going_on.set()
        async with asyncio.timeout(30):
            await ended.wait()
    check_stream(frames)
    assert frames[0]["task"]["messages"] + messages(frames) == [{"step": number} for number in range(3)]
    final = frames[-1]["task"]
    assert (final["progress"], final["target"], final["status"]) == (3, 3, "succeeded")
    if not engine.inline:
        assert [frame["progress"] for frame in frames if frame["type"] == "progress"][-1] == 3


async def test_a_pending_run_is_cancelled(engine):
    info = await Double.astart({"n": 1}, delay=3600)
    assert await info.acancel() is True
    with pytest.raises(TaskCancelled):
        await info.aresult(timeout=30)
    assert (info.attempt, info.started, Double.executed) == (0, None, [])


@both(Patient, AsyncPatient)
async def test_a_running_task_is_cancelled(engine, task):
    info = await task.astart()
    await becomes(info, message_count=1)
    assert await info.acancel() is True
    with pytest.raises(TaskCancelled):
        await info.aresult(timeout=30)
    assert (info.attempt, info.cancel_requested) == (1, True)


@both(Slow, AsyncSlow)
async def test_a_timeout_ends_a_run(engine, task):
    info = await task.astart()
    with pytest.raises(TaskFailed):
        await info.aresult(timeout=30)
    assert info.error["code"] == "timeout"


@both(Flaky, AsyncFlaky)
async def test_an_error_of_retry_on_is_tried_again(engine, task):
    info = await task.astart()
    assert await info.aresult(timeout=30) == {"attempt": 2}


async def test_a_run_begins_when_it_is_due(engine):
    later, due = await Double.astart({"n": 1}, delay=3600), await Double.astart({"n": 2}, delay=2)
    assert await due.aresult(timeout=30) == {"n": 4}
    assert due.started >= due.run_at - EARLY
    await later.arefresh_from_db()
    assert (later.status, Double.executed) == ("pending", [2])


@both(Patient, AsyncPatient)
async def test_a_run_goes_on_after_a_restart_of_what_executes_it(engine, task):
    info = await task.astart()
    await becomes(info, message_count=1)
    await engine.stop()
    await info.arefresh_from_db()
    assert (info.status, info.handed_back, info.worker) == ("pending", 1, "")
    await engine.start()
    assert await info.aresult(timeout=30) == {"attempt": 2}


@both(Double, AsyncDouble)
async def test_a_run_of_a_transaction_begins_after_its_commit_and_not_after_a_rollback(engine, task):
    def start(n, commit):
        with transaction.atomic():
            info = task.start({"n": n})
            assert Double.executed == []
            transaction.set_rollback(not commit)
        return info

    await sync_to_async(start)(1, commit=False)
    info = await sync_to_async(start)(2, commit=True)
    assert await info.aresult(timeout=30) == {"n": 4}
    assert Double.executed == [2]
    assert [uuid async for uuid in TaskInfo.objects.values_list("uuid", flat=True)] == [info.uuid]
