"""A run that no worker takes says so, to its readers and to the log; a run that has just begun to wait says nothing."""

import json
import time
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone

from taskapi import events
from taskapi.backends import QueueUnavailable, attendance, get_backend
from taskapi.backends.attendance import KEPT, LOG_INTERVAL, PATIENCE, hint_for
from taskapi.events import hub
from taskapi.events.following import Following, find_run
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo
from taskapi.protocol import represent
from tests.support.backends import ListBackend
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("backend")

LONG_AGO = timezone.now() - timedelta(hours=1)
NO_WORKER = {
    "code": "no_worker",
    "message": "No worker takes the queue 'slow'. Start one: python manage.py taskworker --queue slow",
}
SNAPSHOT = {"type": "snapshot", "ref": "1"}


class Asked(ListBackend):
    """Answers what the test has set, and counts the questions."""

    def __init__(self):
        super().__init__()
        self.answer = False
        self.questions = 0

    def has_worker(self, queue):
        self.questions += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def backend(settings, monkeypatch):
    monkeypatch.setattr(attendance, "_answers", {})
    settings.TASK_API_BACKEND = f"{__name__}.Asked"
    return get_backend()


@pytest.fixture
def pass_time(monkeypatch):
    passed = [0.0]
    monkeypatch.setattr(attendance, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + sum(passed)))
    return passed.append


def waiting(**fields):
    return TaskInfo(**{"task": "sum", "queue": "slow", "created": LONG_AGO} | fields)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == attendance.__name__]


# The hint


def test_a_run_that_no_worker_takes_has_a_hint():
    assert hint_for(waiting()) == NO_WORKER
    assert hint_for(waiting(run_at=timezone.now() - 2 * PATIENCE)) == NO_WORKER


@pytest.mark.parametrize(
    "fields",
    [
        {"created": timezone.now() + timedelta(hours=1)},
        {"run_at": timezone.now() + timedelta(hours=1)},
        *({"status": status} for status in ("running", "succeeded", "failed", "cancelled")),
    ],
)
def test_nobody_is_asked_about_a_run_that_does_not_wait_for_long(backend, fields):
    assert hint_for(waiting(**fields)) is None
    assert backend.questions == 0


@pytest.mark.parametrize("answer", [True, None, QueueUnavailable("It is away."), ValueError("A bug.")])
def test_a_queue_that_has_a_worker_or_cannot_tell_gives_no_hint(backend, caplog, answer):
    backend.answer = answer
    assert hint_for(waiting()) is None
    assert lines(caplog) == []


def test_a_backend_that_cannot_be_imported_keeps_no_run_from_its_reader(settings):
    settings.TASK_API_BACKEND = "nowhere.Backend"
    assert hint_for(waiting()) is None


def test_a_backend_cannot_tell_by_default():
    assert ListBackend().has_worker("slow") is None


def test_the_backend_is_asked_seldom_however_many_readers_there_are(backend, pass_time):
    for _ in range(100):
        assert hint_for(waiting()) == NO_WORKER
    assert backend.questions == 1
    backend.answer = True
    pass_time(KEPT)
    assert hint_for(waiting()) is None
    assert backend.questions == 2


def test_the_log_says_it_once_a_minute_for_each_queue(caplog, pass_time):
    for _ in range(3):
        hint_for(waiting())
        hint_for(waiting(queue="slower"))
        pass_time(KEPT)
    assert lines(caplog) == [
        f"No worker takes the queue {queue!r}, and runs wait in it. They begin when a worker does: "
        f"python manage.py taskworker --queue {queue}"
        for queue in ("slow", "slower")
    ]
    pass_time(LOG_INTERVAL)
    hint_for(waiting())
    assert len(lines(caplog)) == 3


# Where it is told


def test_a_representation_without_a_hint_has_no_such_key():
    info = waiting()
    assert "hint" not in represent(info)
    info.hint = NO_WORKER
    assert represent(info)["hint"] == NO_WORKER


@pytest.mark.django_db
def test_rest_tells_it():
    info = TaskInfo.objects.create(task="sum", queue="slow", created=LONG_AGO)
    assert Client().get(f"/tasks/{info.uuid}/").json()["hint"] == NO_WORKER
    info = TaskInfo.objects.create(task="sum", queue="slow", status="running", created=LONG_AGO)
    assert "hint" not in Client().get(f"/tasks/{info.uuid}/").json()


@pytest.mark.django_db
def test_a_run_that_has_just_been_started_has_no_hint():
    call = {"task": "sum", "inputs": {"numbers": [1]}}
    response = Client().post("/tasks/", call, content_type="application/json")
    assert response.status_code == 201
    assert "hint" not in response.json()


@pytest.fixture
def in_process():
    with events.using(InProcessEvents()):
        yield


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("in_process")
async def test_a_snapshot_tells_it():
    info = await TaskInfo.objects.acreate(task="sum", queue="slow", created=LONG_AGO)
    frames = []

    async def send(text):
        frames.append(json.loads(text))

    async with Following(send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
    assert frames[0]["task"]["hint"] == NO_WORKER


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("in_process")
async def test_a_run_that_is_only_followed_is_logged(monkeypatch, caplog, backend):
    """Its reader hears no event, and asks nothing."""
    monkeypatch.setattr(hub, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(attendance, "KEPT", 0)
    runs = [
        await TaskInfo.objects.acreate(task="sum", **fields)
        for fields in (
            {"queue": "slow", "created": LONG_AGO},
            {"queue": "new"},
            {"queue": "later", "created": LONG_AGO, "run_at": timezone.now() + timedelta(hours=1)},
            {"queue": "busy", "created": LONG_AGO, "status": "running", "seq": 1_000},
        )
    ]

    async def send(text):
        pass

    backend.answer = None
    async with Following(send) as following:
        for info in runs:
            await following.follow(UUID(str(info.uuid)), SNAPSHOT, find_run)
        backend.answer = False
        await until(lambda: lines(caplog))
        asked = backend.questions
        await until(lambda: backend.questions > asked + 2)
    assert [line.split("'")[1] for line in lines(caplog)] == ["slow"]
