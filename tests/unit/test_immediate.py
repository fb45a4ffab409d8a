"""ImmediateBackend: a run is executed in `start()`, or when the transaction around it is committed."""

import asyncio
import json
import time
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase, override_settings
from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.events.following import Following, find_run
from taskapi.exceptions import IdempotencyConflict, InvalidInputs, TaskFailed
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.routing import websocket_urlpatterns
from taskapi.tasks import Task
from tests.integration.contract.guarantees import check_stream

IMMEDIATE = "taskapi.backends.immediate.ImmediateBackend"


class Double(Task):
    name = "double"
    inputs = {"n": IntParameter()}
    outputs = {"n": IntParameter()}

    def run(self, n):
        self.set_target(n)
        for number in range(n):
            self.add_message(number)
            self.inc_progress()
        return 2 * n


class AsyncDouble(Double):
    name = "async_double"

    async def run(self, n):
        await asyncio.sleep(0)
        return super().run(n)


class Unsteady(Task):
    name = "unsteady"
    outputs = {"attempt": IntParameter()}
    max_attempts = 4
    retry_on = (ConnectionError,)
    retry_delay = 3600.0

    def run(self):
        if self.info.attempt < 4:
            raise ConnectionError("nobody there")
        return self.info.attempt


class Nested(Task):
    """Starts another run, and waits for it."""

    name = "nested"
    outputs = {"n": IntParameter()}

    def run(self):
        return Double.start({"n": 1}).result()["n"] + AsyncDouble.start({"n": 1}).result()["n"]


class AsyncNested(Nested):
    name = "async_nested"

    async def run(self):
        first, second = await Double.astart({"n": 1}), await AsyncDouble.astart({"n": 1})
        return (await first.aresult())["n"] + (await second.aresult())["n"]


class Stranger(Double):
    name = "stranger"  # not registered


class GivesUp(Task):
    name = "gives_up"

    def run(self):
        self.info.cancel()
        self.check_cancelled()


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKEND = IMMEDIATE
    settings.TASK_API_BACKGROUND_TASKS = [Double, AsyncDouble, Unsteady, Nested, AsyncNested, GivesUp]


committed = pytest.mark.django_db(transaction=True)
BOTH = pytest.mark.parametrize("task", [Double, AsyncDouble])


@committed
@BOTH
def test_start_executes_the_run(task):
    info = task.start({"n": "2"})
    assert (info.status, info.outputs, info.progress, info.target, info.messages) == (
        "succeeded",
        {"n": 4},
        2,
        2,
        [0, 1],
    )
    assert info.result() == {"n": 4}
    assert (info.cancel(), info.retry().outputs) == (False, {"n": 4})


@committed
@BOTH
async def test_astart_executes_the_run(task):
    info = await task.astart({"n": 2})
    assert (info.status, info.outputs) == ("succeeded", {"n": 4})
    assert await info.aresult() == {"n": 4}


@committed
def test_a_run_that_fails_raises_where_its_result_is_asked_for():
    class Broken(Double):
        name = "broken"

        def run(self, n):
            raise RuntimeError

    with override_settings(TASK_API_BACKGROUND_TASKS=[Broken]):
        info = Broken.start({"n": 1})
    with pytest.raises(TaskFailed):
        info.result()


@committed
def test_a_task_that_is_not_registered_fails_as_no_worker_would_know_it():
    info = Stranger.start({"n": 1})
    assert info.error == {"code": "unknown_task", "message": "There is no task named 'stranger'."}


@committed
def test_invalid_inputs_raise_and_leave_no_row():
    with pytest.raises(InvalidInputs):
        Double.start({"n": "many"})
    assert not TaskInfo.objects.exists()


@committed
def test_a_transaction_executes_it_on_commit_and_a_rollback_never():
    with transaction.atomic():
        user = User.objects.create(username="ann")
        info = Double.start({"n": 1}, user=user)
        assert info.status == "pending"
    assert (info.status, info.user) == ("succeeded", user)
    with transaction.atomic():
        dropped = Double.start({"n": 1})
        transaction.set_rollback(True)
    assert dropped.status == "pending"
    assert TaskInfo.objects.count() == 1


@committed
def test_a_run_that_is_cancelled_before_the_commit_is_not_executed():
    with transaction.atomic():
        info = Double.start({"n": 1})
        assert info.cancel()
    info.refresh_from_db()
    assert (info.status, info.attempt) == ("cancelled", 0)


class TestInATestCase(TestCase):
    def test_it_waits_for_the_commit_that_the_test_has_to_pretend(self):
        for task in (Double, AsyncDouble):
            with self.subTest(task.name):
                with self.captureOnCommitCallbacks(execute=True):
                    info = task.start({"n": 1})
                    assert info.status == "pending"
                assert (info.status, info.outputs) == ("succeeded", {"n": 2})

    def test_runs_that_runs_start_are_executed_too(self):
        class Starts(Task):
            name = "starts"

            def run(self):
                Double.start({"n": 1})

        tasks = override_settings(TASK_API_BACKGROUND_TASKS=[Starts, Double])
        with tasks, self.captureOnCommitCallbacks(execute=True):
            Starts.start()
        assert {info.status for info in TaskInfo.objects.all()} == {"succeeded"}
        assert TaskInfo.objects.count() == 2


@committed
@pytest.mark.parametrize("task", [Nested, AsyncNested])
def test_a_run_may_start_others_and_wait_for_them(task):
    assert task.start().result(timeout=20) == {"n": 4}


@committed
@pytest.mark.parametrize("task", [Nested, AsyncNested])
async def test_so_may_one_that_is_started_in_async_code(task):
    info = await task.astart()
    assert await info.aresult(timeout=20) == {"n": 4}


@committed
def test_attempts_follow_at_once():
    begun = time.monotonic()
    info = Unsteady.start()
    assert (info.outputs, info.attempt) == ({"attempt": 4}, 4)
    assert time.monotonic() - begun < Unsteady.retry_delay


@committed
@pytest.mark.parametrize("options", [{"delay": 3600}, {"run_at": timezone.now() + timedelta(days=1)}])
def test_a_delay_is_recorded_and_not_waited_for(options):
    info = Double.start({"n": 1}, **options)
    assert info.status == "succeeded"
    assert info.run_at > timezone.now()


@committed
def test_a_run_that_cancels_itself():
    assert GivesUp.start().status == "cancelled"


@committed
def test_an_idempotency_key_starts_once():
    first = Double.start({"n": 1}, idempotency_key="k")
    again = Double.start({"n": 1}, idempotency_key="k")
    assert (first, first.status) == (again, "succeeded")
    with pytest.raises(IdempotencyConflict):
        Double.start({"n": 2}, idempotency_key="k")
    assert TaskInfo.objects.count() == 1


@committed
def test_the_backend_says_that_no_other_process_executes():
    backend = get_backend()
    assert (backend.other_processes, backend.inline, backend.has_worker_queue) == (False, True, False)


# Over REST and a socket


@committed
@BOTH
def test_rest_starts_and_shows_the_run(client, task):
    answer = client.post("/tasks/", {"task": task.name, "inputs": {"n": 2}}, content_type="application/json")
    assert answer.status_code == 201
    found = client.get(answer["Location"]).json()
    assert (found["status"], found["outputs"], found["messages"]) == ("succeeded", {"n": 4}, [0, 1])


@committed
@BOTH
async def test_a_socket_gets_every_event(task):
    socket = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "tasks/ws/", headers=[])
    assert (await socket.connect(timeout=20))[0]
    await socket.send_json_to({"type": "run", "ref": "1", "task": task.name, "inputs": {"n": 2}})
    frames = [await socket.receive_json_from(timeout=20)]
    while frames[-1]["type"] != "finished":
        frames.append(await socket.receive_json_from(timeout=20))
    await socket.disconnect(timeout=20)
    assert frames[0]["type"] == "accepted"
    check_stream(frames)
    assert [frame["message"] for frame in frames if frame["type"] == "message"] == [0, 1]
    assert frames[-1]["task"]["outputs"] == {"n": 4}


@committed
async def test_followers_of_a_run_hear_it():
    """Those that follow it before it is executed: here, before its transaction is committed."""
    frames, ended = [], asyncio.Event()

    async def send(text):
        frames.append(json.loads(text))
        if frames[-1]["type"] == "finished":
            ended.set()

    info = await TaskInfo.objects.acreate(task="double", inputs={"n": 2})
    async with Following(send) as following:
        await following.follow(info.uuid, {"type": "snapshot"}, find_run)
        await sync_to_async(get_backend().enqueue)(info.uuid, queue="default")
        async with asyncio.timeout(20):
            await ended.wait()
    check_stream(frames)
    assert frames[-1]["task"]["progress"] == 2


@committed
def test_a_sync_caller_inside_async_code_is_served_as_well():
    async def view():
        return await Double.astart({"n": 1}), await AsyncDouble.astart({"n": 1})

    assert [info.status for info in async_to_sync(view)()] == ["succeeded", "succeeded"]
