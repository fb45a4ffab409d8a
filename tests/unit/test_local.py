"""Runs that are executed where they are started: the queue in memory, and the thread that takes from it."""

import asyncio
import sys
import threading
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core import checks
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import OperationalError, connections
from django.test import Client, override_settings
from django.utils import timezone

from taskapi import events
from taskapi.asgi import get_asgi_application
from taskapi.backends import get_backend
from taskapi.backends.local import Jobs
from taskapi.engines import local, serving
from taskapi.events.channel_layer import ChannelLayerEvents
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.workers.host import Host
from tests.support.waiting import until, wait_for

LOCAL = "taskapi.backends.local.LocalBackend"
A, B, C = (UUID(int=number) for number in range(3))


def seconds_away(seconds):
    return timezone.now() + timedelta(seconds=seconds)


# What waits


@pytest.fixture
def waiting():
    waiting = Jobs()
    waiting.open(lambda: None)
    return waiting


def test_nothing_waits_where_nobody_takes():
    assert Jobs().put(A) is False
    assert Jobs().take() is None


def test_runs_are_taken_in_their_order(waiting):
    for uuid in (B, A, C):
        assert waiting.put(uuid) is True
    assert [waiting.take() for _ in range(4)] == [B, A, C, None]


def test_a_run_waits_until_it_is_due(waiting):
    waiting.put(A, seconds_away(3600))
    assert waiting.take() is None
    assert 3500 < waiting.next_due() <= 3600


def test_a_run_that_is_due_does_not_wait_behind_one_that_is_not(waiting):
    waiting.put(A, seconds_away(3600))
    waiting.put(B, seconds_away(-3600))
    waiting.put(C)
    assert [waiting.take() for _ in range(3)] == [B, C, None]


def test_what_was_said_last_of_a_run_holds(waiting):
    waiting.put(A, seconds_away(3600))
    waiting.put(A)
    assert [waiting.take(), waiting.take()] == [A, None]
    waiting.put(B)
    waiting.put(B, seconds_away(3600))
    assert waiting.take() is None
    assert waiting.next_due() > 3500


def test_who_takes_is_woken(waiting):
    woken = []
    waiting.open(lambda: woken.append(threading.current_thread().name))
    waiting.put(A)
    other = threading.Thread(target=waiting.put, args=[B], name="other")
    other.start()
    other.join(20)
    assert woken == [threading.main_thread().name, "other"]


def test_a_run_is_missing_that_neither_waits_nor_is_executed(waiting):
    waiting.put(A)
    waiting.put(B)
    assert waiting.take() == A
    assert waiting.without([A, B, C]) == [C]
    waiting.done(A)
    assert waiting.without([A, B, C]) == [A, C]


def test_a_run_that_waits_again_while_it_ends_is_not_forgotten(waiting):
    waiting.put(A)
    waiting.take()
    waiting.put(A)  # its next attempt
    waiting.done(A)
    assert waiting.without([A]) == []
    assert waiting.take() == A


def test_what_waits_is_forgotten_when_nobody_takes_any_more(waiting):
    waiting.put(A)
    waiting.put(B)
    waiting.take()
    waiting.close()
    waiting.done(A)
    assert waiting.put(C) is False
    waiting.open(lambda: None)
    assert (waiting.take(), waiting.next_due()) == (None, None)
    assert waiting.without([A, B, C]) == [A, B, C]


# The backend


@pytest.fixture
def backend(settings):
    settings.TASK_API_BACKEND = LOCAL
    return get_backend()


def test_a_run_that_is_started_where_nothing_is_served_waits_in_its_row(backend, caplog):
    caplog.set_level("INFO", "taskapi")
    uuid = uuid4()
    backend.enqueue(uuid, queue="default")
    assert f"Run {uuid} waits in its row, because this process serves nothing." in caplog.text
    assert backend.missing("default", [uuid]) == [uuid]


def test_no_worker_works_for_it(backend):
    assert (backend.has_worker_queue, backend.other_processes) == (False, False)


def test_the_backend_decides_how_events_travel(settings):
    assert isinstance(events.get_events(), ChannelLayerEvents)
    with override_settings(TASK_API_BACKEND=LOCAL):
        assert isinstance(events.get_events(), InProcessEvents)
        with events.using(ChannelLayerEvents()) as others:
            assert events.get_events() is others
    assert isinstance(events.get_events(), ChannelLayerEvents)


def deployed(**options):
    messages = checks.run_checks(tags=["taskapi"], databases=[], **options)
    return [(message.id, message.hint) for message in messages if message.id == "taskapi.I002"]


def test_a_check_says_that_one_process_is_enough_before_a_site_is_deployed(settings):
    settings.TASK_API_BACKGROUND_TASKS = []  # so that no worker is looked for
    assert deployed(include_deployment_checks=True) == []
    settings.TASK_API_BACKEND = LOCAL
    assert deployed() == []
    ((number, hint),) = deployed(include_deployment_checks=True)
    assert number == "taskapi.I002"
    assert "with one process" in hint


# Whether this process serves


@pytest.fixture
def served(monkeypatch):
    """Counts how often this process was told that it serves."""
    told = []
    monkeypatch.setattr(serving, "serve", lambda: told.append(True))
    return told


@pytest.mark.parametrize("handler", [WSGIHandler, ASGIHandler, type("StaticFiles", (WSGIHandler,), {})])
def test_a_request_to_a_server_tells_that_this_process_serves(served, handler):
    serving._request_started(handler)
    assert served == [True]


@pytest.mark.django_db
def test_a_request_of_a_test_does_not(served):
    assert any("taskapi" in str(key) for key, *_ in request_started.receivers)
    Client().get("/tasks/")
    assert served == []


@pytest.mark.parametrize(
    ("arguments", "run_main", "serves"),
    [
        (["manage.py", "runserver"], "true", True),
        (["manage.py", "runserver"], None, False),  # it watches the files, and starts the one that serves
        (["manage.py", "runserver", "--noreload"], None, True),
        (["manage.py", "migrate"], "true", False),
        (["manage.py", "shell", "runserver"], "true", False),
        (["manage.py"], None, False),
    ],
)
def test_only_the_process_of_runserver_that_serves_is_taken_for_one(monkeypatch, arguments, run_main, serves):
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.delenv("RUN_MAIN", raising=False)
    if run_main is not None:
        monkeypatch.setenv("RUN_MAIN", run_main)
    assert serving.is_runserver() is serves
    monkeypatch.setattr("multiprocessing.parent_process", SimpleNamespace)
    assert serving.is_runserver() is False, "the process of a run has the arguments of the server"


def test_twisted_tells_that_daphne_serves(monkeypatch):
    called = []
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", SimpleNamespace(callWhenRunning=called.append))
    serving.watch()
    assert called == [serving._serve_soon]


@pytest.mark.parametrize("path", ["taskapi.backends.local.Mistyped", "taskapi.backends.arq.ArqBackend"])
def test_serving_is_not_disturbed_by_a_backend_without_an_engine(settings, path):
    settings.TASK_API_BACKEND = path
    serving.serve()
    assert local._thread is None


# The thread


class Double(Task):
    name = "double"
    inputs = {"n": IntParameter()}
    outputs = {"n": IntParameter()}

    def run(self, n):
        return 2 * n


class Patient(Task):
    """Waits until it is stopped."""

    name = "patient"
    queue = "slow"

    async def run(self):
        self.add_message("waiting")
        await asyncio.Event().wait()


class Stuck(Task):
    """Blocks its thread, until the test lets it go."""

    name = "stuck"
    going_on = threading.Event()

    def run(self):
        self.add_message("waiting")
        self.going_on.wait(30)


class BadCallback(Task):
    """Leaves a callback on the loop that would end it."""

    name = "bad_callback"

    async def run(self):
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0.1)


@pytest.fixture
def project(settings, monkeypatch, transactional_db):
    monkeypatch.setattr("taskapi.models.LAST_LOOK", 0.02)
    settings.TASK_API_BACKEND = LOCAL
    settings.TASK_API_BACKGROUND_TASKS = [Double, Patient, Stuck, BadCallback]
    yield settings
    local.stop()


@pytest.fixture
def serves(project):
    serving.serve()


def says(info):
    """Wait until the task has said something."""

    def look():
        info.refresh_from_db()
        return info.message_count

    return wait_for(look)


def test_runs_are_executed_in_this_process(serves):
    assert Double.start({"n": 2}).result(timeout=20) == {"n": 4}


def test_a_run_that_the_first_request_starts_is_not_said_to_wait_for_another_process(project, caplog):
    caplog.set_level("INFO", "taskapi")
    serving.serve()
    assert Double.start({"n": 2}).result(timeout=20) == {"n": 4}
    assert "this process serves nothing" not in caplog.text


async def test_runs_that_a_loop_starts_are_executed_too(serves):
    started = [await Double.astart({"n": n}) for n in range(20)]
    assert [await info.aresult(timeout=20) for info in started] == [{"n": 2 * n} for n in range(20)]


def test_there_is_one_thread_however_often_the_process_is_told_that_it_serves(serves):
    for _ in range(3):
        serving.serve()
    assert [thread.name for thread in threading.enumerate()].count("taskapi-local") == 1


def test_runs_that_waited_before_are_taken_up_at_once_whatever_their_queue_is(project):
    waiting = [Double.start({"n": 1}), Patient.start()]
    serving.serve()
    assert waiting[0].result(timeout=20) == {"n": 2}
    says(waiting[1])


def test_no_more_runs_are_executed_at_once_than_there_are_slots(serves, monkeypatch):
    monkeypatch.setattr(local, "CONCURRENCY", 1)
    first = Patient.start()
    says(first)
    second = Double.start({"n": 1})
    wait_for(lambda: get_backend().missing("default", [second.uuid]) == [])
    second.refresh_from_db()
    assert second.status == "pending"
    first.cancel()
    assert second.result(timeout=20) == {"n": 2}


def test_what_runs_is_handed_back_when_it_stops(serves):
    info = Patient.start()
    says(info)
    local.stop()
    info.refresh_from_db()
    assert (info.status, info.handed_back, info.worker) == ("pending", 1, "")
    serving.serve()
    wait_for(lambda: says(info) == 2)


def test_it_does_not_wait_for_a_thread_that_cannot_be_ended(serves, monkeypatch):
    monkeypatch.setattr(local, "CLEANUP_TIME", 0.05)
    info = Stuck.start()
    says(info)
    try:
        local.stop()
        info.refresh_from_db()
        assert (info.status, info.handed_back) == ("pending", 1)
    finally:
        Stuck.going_on.set()


def test_a_test_that_uses_another_backend_stops_it(serves):
    with override_settings(TASK_API_RETENTION=5):
        assert local._thread is not None
    with override_settings(TASK_API_BACKEND="tests.support.backends.ListBackend"):
        assert local._thread is None
        info = Double.start({"n": 1})
        assert [job.uuid for job in get_backend().jobs] == [info.uuid]
    serving.serve()
    assert info.result(timeout=20) == {"n": 2}


def test_a_database_without_tables_is_told_once_and_waited_for(project, monkeypatch, caplog):
    monkeypatch.setattr(local, "RETRY_PAUSE", 0.02)
    usual, tries, there = local._requeue_all, [], threading.Event()

    def look():
        tries.append(True)
        if not there.is_set():
            raise OperationalError("no such table: taskapi_taskinfo")
        return usual()

    monkeypatch.setattr(local, "_requeue_all", look)
    info = Double.start({"n": 1})
    serving.serve()
    wait_for(lambda: len(tries) > 3)
    there.set()
    assert info.result(timeout=20) == {"n": 2}
    assert caplog.text.count("`python manage.py migrate` creates it") == 1


def test_a_host_that_fails_is_replaced(serves, monkeypatch, caplog):
    monkeypatch.setattr(local, "RETRY_PAUSE", 0.02)
    assert Double.start({"n": 0}).result(timeout=20) == {"n": 0}
    hosts = []
    usual = Host.start
    monkeypatch.setattr(Host, "start", lambda host: hosts.append(host) or usual(host))
    local._thread._worker._loop.call_soon_threadsafe(local._thread._worker._fail, "the test says so")
    wait_for(lambda: hosts)
    assert Double.start({"n": 1}).result(timeout=20) == {"n": 2}
    assert "is replaced by a new one: the test says so" in caplog.text


def test_a_callback_of_a_task_does_not_end_it(serves):
    info = BadCallback.start()
    wait_for(lambda: TaskInfo.objects.get(pk=info.pk).is_final)
    assert Double.start({"n": 1}).result(timeout=20) == {"n": 2}


def test_a_run_that_was_deleted_meanwhile_is_passed_over(serves, caplog):
    caplog.set_level("DEBUG", "taskapi")
    uuid = uuid4()
    get_backend().enqueue(uuid, queue="default")
    wait_for(lambda: f"Run {uuid} was deleted before it could begin" in caplog.text)
    assert Double.start({"n": 1}).result(timeout=20) == {"n": 2}


async def test_a_run_whose_job_was_lost_is_found(serves, monkeypatch):
    monkeypatch.setattr("taskapi.workers.host.SWEEP_INTERVAL", 0.02)
    monkeypatch.setattr("taskapi.workers.upkeep.SWEEP_AGE", timedelta(0))
    info = await TaskInfo.objects.acreate(task="double", inputs={"n": 3})  # by another process
    assert await info.aresult(timeout=20) == {"n": 6}


async def test_a_server_that_tells_when_it_starts_and_ends_is_heard(project):
    """As uvicorn does."""
    patient = await Patient.astart()
    server = ApplicationCommunicator(get_asgi_application(), {"type": "lifespan", "asgi": {"version": "3.0"}})
    await server.send_input({"type": "lifespan.startup"})
    assert await server.receive_output(20) == {"type": "lifespan.startup.complete"}
    await sync_to_async(says)(patient)
    await server.send_input({"type": "lifespan.shutdown"})
    assert await server.receive_output(20) == {"type": "lifespan.shutdown.complete"}
    await patient.arefresh_from_db()
    assert (patient.status, patient.handed_back) == ("pending", 1)
    await server.wait(20)


async def test_a_cancelled_run_is_stopped_at_once(serves, monkeypatch):
    monkeypatch.setattr("taskapi.workers.leases.RENEW_INTERVAL", 3600)  # so that only the event can tell
    info = await Patient.astart()
    await sync_to_async(says)(info)
    await info.acancel()
    await until(lambda: not local._thread._worker._running)
    await info.arefresh_from_db()
    assert info.status == "cancelled"


def test_its_connections_are_closed(project, monkeypatch):
    """Those of the thread, of the host's threads, and of the tasks'."""
    opened, closed = [], []
    kind = type(connections["default"])
    monkeypatch.setattr(kind, "connect", counting(kind.connect, opened))
    monkeypatch.setattr(kind, "_close", counting(kind._close, closed))
    serving.serve()
    assert Double.start({"n": 1}).result(timeout=20) == {"n": 2}
    local.stop()
    ours = threading.current_thread().name
    theirs = Counter(name for name in opened if name != ours)
    wait_for(lambda: theirs <= Counter(closed))
    assert any(name.startswith("taskapi") for name in opened)


def counting(method, threads):
    def call(self):
        if self.connection is not None or method.__name__ == "connect":
            threads.append(threading.current_thread().name)
        return method(self)

    return call


def test_a_process_that_ends_executes_nothing_new(project, monkeypatch):
    monkeypatch.setattr(local, "_ending", True)
    serving.serve()
    assert local._thread is None
