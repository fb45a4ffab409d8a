"""The kit for tests (docs/testing.md) with all its threads: the worker inside a test, and a project that uses it."""

import asyncio
import threading
from contextlib import contextmanager
from itertools import pairwise
from unittest import mock

import httpx
import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.test import TestCase, TransactionTestCase, override_settings

from taskapi.backends import get_backend
from taskapi.exceptions import TaskCancelled
from taskapi.models import TaskInfo
from taskapi.params import IntParameter, StringParameter
from taskapi.pytest_plugin import taskapi_worker  # noqa: F401 - the fixture
from taskapi.routing import websocket_urlpatterns
from taskapi.tasks import Task
from taskapi.testing import RecordingBackend, run_task, worker
from tests.integration.contract.guarantees import check_stream, messages
from tests.support.waiting import wait_for

LIMIT = 30.0  # seconds


class Count(Task):
    name = "count"
    inputs = {"n": IntParameter()}
    outputs = {"counted": IntParameter()}

    def run(self, n):
        for number in self.track(range(n)):
            self.add_message(number)
        return n


class AsyncCount(Count):
    name = "async_count"

    async def run(self, n):
        async for number in self.track(range(n)):
            self.add_message(number)
        return n


class AddUser(Task):
    name = "add_user"
    inputs = {"name": StringParameter()}

    def run(self, name):
        User.objects.create(username=name)


class AsyncAddUser(AddUser):
    name = "async_add_user"

    async def run(self, name):
        await User.objects.acreate(username=name)


class Patient(Task):
    name = "patient"

    async def run(self):
        self.add_message("waiting")
        await asyncio.Event().wait()


class Unsteady(Task):
    name = "unsteady"
    retry_on = (ConnectionError,)
    retry_delay = 0.01

    def run(self):
        if self.info.attempt < 3:
            raise ConnectionError


TASKS = [Count, AsyncCount, AddUser, AsyncAddUser, Patient, Unsteady]


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = TASKS
    settings.TASK_API_BACKEND = "taskapi.testing.RecordingBackend"


def own_threads():
    """The threads of this package; but the watch lives as long as the process."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("taskapi-")} - {watch()}


def watch():
    return next((thread for thread in threading.enumerate() if thread.name == "taskapi-watch"), None)


@contextmanager
def all_is_closed():
    """The block leaves no thread of ours behind, and no connection that another thread has opened."""
    opened = []

    def record(connection, **_):
        if threading.current_thread() is not threading.main_thread():
            opened.append(connection)

    before = own_threads()
    connection_created.connect(record)
    try:
        yield
    finally:
        connection_created.disconnect(record)
    wait_for(lambda: own_threads() <= before)
    assert opened, "the worker has used the database"
    wait_for(lambda: all(connection.connection is None for connection in opened))


class TestWorker(TransactionTestCase):
    def test_it_executes_what_is_started_over_rest(self):
        with all_is_closed(), worker():
            for task in (Count, AsyncCount):
                body = {"task": task.name, "inputs": {"n": 3}}
                answer = self.client.post("/tasks/", body, content_type="application/json")
                assert answer.status_code == 201
                uuid = answer.json()["uuid"]
                assert TaskInfo.objects.get(uuid=uuid).result(timeout=LIMIT) == {"counted": 3}
                found = self.client.get(f"/tasks/{uuid}/").json()
                assert (found["progress"], found["target"], found["messages"]) == (3, 3, [0, 1, 2])
        assert isinstance(get_backend(), RecordingBackend)

    def test_at_its_end_all_that_was_started_has_ended(self):
        with worker():
            infos = [task.start({"name": task.name}) for task in (AddUser, AsyncAddUser)]
            unsteady = Unsteady.start()
        for info in infos:
            info.refresh_from_db()
            assert info.status == "succeeded"
        assert set(User.objects.values_list("username", flat=True)) == {"add_user", "async_add_user"}
        unsteady.refresh_from_db()
        assert (unsteady.status, unsteady.attempt) == ("succeeded", 3)

    def test_it_executes_what_waited_before_it(self):
        info = Count.start({"n": 1})
        with worker():
            assert info.result(timeout=LIMIT) == {"counted": 1}

    def test_join_waits_inside_the_block(self):
        with worker() as working:
            Count.start({"n": 1})
            working.join()
            assert TaskInfo.objects.get().status == "succeeded"

    def test_a_run_that_is_due_much_later_is_not_waited_for(self):
        with worker():
            info = Count.start({"n": 1}, delay=3600)
        info.refresh_from_db()
        assert info.status == "pending"

    def test_cancel(self):
        with all_is_closed(), worker():
            info = Patient.start()
            wait_for(lambda: info.refresh_from_db() or info.message_count)
            info.cancel()
            with pytest.raises(TaskCancelled):
                info.result(timeout=LIMIT)

    def test_what_does_not_end_is_named_and_handed_back(self):
        told = pytest.raises(TimeoutError, match=r"After 0.1 s, .*\(task 'patient', (pending|running)\)")
        with told, all_is_closed(), worker(patience=0.1):
            info = Patient.start()
        info.refresh_from_db()
        assert info.status == "pending"

    def test_an_error_inside_is_not_held_up(self):
        def fail():
            with all_is_closed(), worker(patience=3600):
                Patient.start()
                raise AssertionError("the test's own")

        with pytest.raises(AssertionError, match="the test's own"):
            fail()

    def test_rows_of_before_and_after_the_block_are_there(self):
        ann = User.objects.create(username="ann")
        with worker():
            info = Count.start({"n": 1}, user=ann)
            assert info.result(timeout=LIMIT) == {"counted": 1}
            bob = User.objects.create(username="bob")
        assert list(User.objects.order_by("username")) == [ann, bob]
        ann.delete()
        assert not TaskInfo.objects.exists()

    def test_one_at_a_time(self):
        with worker(concurrency=1):
            for n in range(5):
                Count.start({"n": n})
        ended = TaskInfo.objects.order_by("id")
        assert [info.outputs for info in ended] == [{"counted": n} for n in range(5)]
        assert all(one.finished <= other.started for one, other in pairwise(ended))

    def test_run_task_works_inside(self):
        with worker():
            assert run_task(Count, {"n": 1}).outputs == {"counted": 1}

    async def test_in_async_code(self):
        async with worker() as working:
            info = await Count.astart({"n": 1})
            assert await info.aresult(timeout=LIMIT) == {"counted": 1}
            await AsyncCount.astart({"n": 2})
            await working.ajoin()
            assert await TaskInfo.objects.filter(status="succeeded").acount() == 2
        assert await TaskInfo.objects.filter(status="succeeded").acount() == 2

    async def test_a_plain_with_in_async_code(self):
        with all_is_closed(), worker() as working:
            info = await AsyncCount.astart({"n": 1})
            assert await info.aresult(timeout=LIMIT) == {"counted": 1}
            await Count.astart({"n": 2})
            working.join()
            assert await TaskInfo.objects.filter(status="succeeded").acount() == 2
        assert await TaskInfo.objects.filter(status="succeeded").acount() == 2


class TestCaseHasATransaction(TestCase):
    def test_it_says_so(self):
        with pytest.raises(RuntimeError, match="Use TransactionTestCase in place of TestCase"), worker():
            pass
        wait_for(lambda: own_threads() == set())  # that of the test before may be ending


# Pytest


def test_the_fixture(taskapi_worker, client):  # noqa: F811 - it is the fixture that is imported above
    answer = client.post("/tasks/", {"task": "count", "inputs": {"n": 1}}, content_type="application/json")
    taskapi_worker.join()
    assert client.get(answer["Location"]).json()["outputs"] == {"counted": 1}


def test_a_live_server(taskapi_worker, live_server):  # noqa: F811
    with httpx.Client(base_url=live_server.url, timeout=LIMIT) as browser:
        started = browser.post("/tasks/", json={"task": "count", "inputs": {"n": 2}}).json()
        taskapi_worker.join()
        assert browser.get(f"/tasks/{started['uuid']}/").json()["messages"] == [0, 1]


@pytest.mark.parametrize("task", ["count", "async_count"])
async def test_a_socket(taskapi_worker, task):  # noqa: F811
    socket = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "tasks/ws/", headers=[])
    assert (await socket.connect(timeout=LIMIT))[0]
    await socket.send_json_to({"type": "run", "ref": "1", "task": task, "inputs": {"n": 3}})
    frames = [await socket.receive_json_from(timeout=LIMIT)]
    while frames[-1]["type"] != "finished":
        frames.append(await socket.receive_json_from(timeout=LIMIT))
    await socket.disconnect(timeout=LIMIT)
    check_stream(frames)
    assert (messages(frames), frames[-1]["status"]) == ([0, 1, 2], "succeeded")


@pytest.mark.django_db(transaction=True)
async def test_a_plain_with_on_a_loop_of_its_own():
    with worker() as working:
        await AsyncCount.astart({"n": 1})
        working.join()
        assert await TaskInfo.objects.filter(status="succeeded").acount() == 1


@pytest.mark.django_db(transaction=True)
def test_settings_may_change_meanwhile():
    """Also in an order in which two `override_settings` would restore the wrong ones."""
    outer, inner = worker(), override_settings(TASK_API_EVENT_INTERVAL=0)
    outer.__enter__()
    inner.enable()
    outer.__exit__(None, None, None)
    inner.disable()
    assert isinstance(get_backend(), RecordingBackend)


@pytest.mark.django_db(transaction=True)
def test_connections_that_a_project_keeps_open_are_closed():
    with mock.patch.dict(connection.settings_dict, CONN_MAX_AGE=None), all_is_closed(), worker():
        for task in (AddUser, AsyncAddUser):
            task.start({"name": task.name})


@pytest.mark.django_db(transaction=True)
def test_nothing_is_left_in_the_thread_of_async_code():
    async def look():
        async with worker():
            await Count.astart({"n": 1})
        return await sync_to_async(lambda: [one.alias for one in connections.all(initialized_only=True)])()

    assert asyncio.run(look()) == ["default"]
