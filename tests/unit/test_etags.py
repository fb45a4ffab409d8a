"""A run's entity tag: another after everything that changes the representation, the same while nothing does."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from taskapi import runs
from taskapi.backends import attendance
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import JSONParameter
from taskapi.protocol.states import Status
from taskapi.runs import Outcome
from taskapi.tasks import Task
from taskapi.workers.executor import Executor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue")]

DONE = Outcome(Status.SUCCEEDED, {"sum": 3})
GZIP = "django.middleware.gzip.GZipMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
LOCALE = "django.middleware.locale.LocaleMiddleware"


class Keep(Task):
    name = "keep"
    inputs = {"value": JSONParameter(required=False)}


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Keep]
    return settings


@pytest.fixture
def info():
    return TaskInfo.objects.create(task="keep", status="running", attempt=1, seq=7, message_count=0)


def get(uuid, query="", client=None, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return (client or Client()).get(f"/tasks/{uuid}/{query}", headers=sent)


def say(info, *bodies, progress=None, target=None):
    """Write a report, as an attempt does."""
    seq = info.seq + len(bodies) + 4
    first = info.message_count
    log = [
        TaskMessage(run_id=info.pk, index=first + number, attempt=info.attempt, seq=info.seq + 1 + number, body=body)
        for number, body in enumerate(bodies)
    ]
    assert runs.record(info, seq=seq, target=target, progress=progress, messages=log)
    info.refresh_from_db()


class Watcher:
    """Looks at a run after each step of its life."""

    def __init__(self, uuid):
        self.uuid = uuid
        self.states = {}  # by their tags

    def look(self):
        """Whether the run has changed since the last look; the tag must say the same, whatever a client asks for."""
        answer = get(self.uuid)
        tag, body = answer["ETag"], answer.content
        is_new = body not in self.states.values()
        assert is_new is (tag not in self.states), (tag, body)
        self.states[tag] = body
        for known in self.states:
            assert get(self.uuid, If_None_Match=known).status_code == (304 if known == tag else 200)
        return is_new


def test_the_tag_changes_with_the_representation_and_not_without(monkeypatch):
    monkeypatch.setattr("taskapi.backends.attendance.KEPT", 0.0)
    info = runs.start(Keep, {"value": 1})
    watcher = Watcher(info.uuid)
    steps = []

    def step(name, changes=True):
        steps.append(name)
        assert watcher.look() is changes, name
        assert watcher.look() is False, name

    TaskInfo.objects.update(created=timezone.now() - timedelta(minutes=1))
    step("pending")
    monkeypatch.setattr("tests.support.backends.ListBackend.has_worker", lambda self, queue: False)
    step("no worker")
    monkeypatch.setattr("tests.support.backends.ListBackend.has_worker", lambda self, queue: True)
    step("a worker", changes=False)  # as it was before
    held = runs.begin(info.uuid)
    step("begun")
    say(held, target=10)
    step("target")
    for number in range(3):
        say(held, target=10, progress=number)
        step(f"progress {number}")
    say(held, "a", "b", target=10, progress=2)
    step("messages")
    TaskInfo.objects.filter(pk=held.pk).update(renewed=timezone.now())
    step("renewed", changes=False)
    assert runs.finish(held, runs.HANDED_BACK, seq=held.seq + 4, target=10, progress=2, messages=[])
    step("handed back")
    held = runs.begin(info.uuid)
    step("begun again")
    assert runs.cancel(TaskInfo.objects.get())
    step("cancel requested")
    assert runs.cancel(TaskInfo.objects.get())
    step("cancel requested again", changes=False)
    held.cancel_requested = True
    say(held, "c")
    step("a last message")
    assert runs.finish(held, DONE, seq=held.seq + 4, target=None, progress=None, messages=[])
    step("final")
    assert runs.cancel(TaskInfo.objects.get()) is False
    step("cancelled too late", changes=False)


def test_a_run_that_is_cancelled_while_it_waits_has_another_tag():
    watcher = Watcher(runs.start(Keep, {}).uuid)
    assert watcher.look()
    assert runs.cancel(TaskInfo.objects.get())
    assert watcher.look()


async def test_each_state_that_a_real_attempt_writes_has_a_tag_of_its_own(settings):
    class Talk(Task):
        name = "talk"

        async def run(self):
            for number in self.track(range(5)):
                self.add_message(number)

    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    info = await TaskInfo.objects.acreate(task="talk")
    watcher = Watcher(info.uuid)
    look = sync_to_async(watcher.look)
    executor = Executor(2)
    assert await look()
    await executor.execute(info.uuid)
    await executor.close()
    assert await look()


def test_a_304_has_no_body_and_says_what_a_200_would(info):
    whole = get(info.uuid)
    known = get(info.uuid, If_None_Match=whole["ETag"])
    assert (known.status_code, known.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Retry-After", "Vary"):
        assert known[name] == whole[name]
    assert "Content-Type" not in known
    TaskInfo.objects.update(status="succeeded", seq=8, outputs={}, finished=timezone.now())
    whole = get(info.uuid)
    known = get(info.uuid, If_None_Match=whole["ETag"])
    assert (known.status_code, "Retry-After" in known) == (304, False)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("*", 304), (" * ", 304), ('"7"', 304), ('W/"7"', 304), ('"6", "7"', 304), ('W/"6",W/"7","8"', 304),
        ('  "7"  ', 304), ('"7";', 200), ('"6"', 200), ('"7c"', 200), ("7", 200), ('"7', 200), ('7"', 200), ("", 200),
        (",", 200), (",,,", 200), ('w/"7"', 200), ('W/W/"7"', 200), ('"*"', 200), ('"7" "7"', 200), ("\x01", 200),
        ("é", 200), ("x" * 8_000, 200), ('"' * 8_000, 200), ('"x",' * 2_000 + '"7"', 304), ("%s", 200), ('"7\\"', 200),
    ],
)  # fmt: skip
def test_a_tag_is_compared_weakly_and_no_header_is_an_error(info, header, status):
    assert get(info.uuid, If_None_Match=header).status_code == status


def test_a_client_that_leaves_out_messages_has_the_same_tags(info):
    TaskMessage.objects.create(run=info, index=0, attempt=1, seq=1, body="a")
    TaskInfo.objects.update(message_count=1)
    tag = get(info.uuid)["ETag"]
    for after in ("?after=0", "?after=1", "?after=999999999999999"):
        assert get(info.uuid, after)["ETag"] == tag
        assert get(info.uuid, after, If_None_Match=tag).status_code == 304
    assert get(info.uuid, "?after=x", If_None_Match=tag).status_code == 400


def test_a_poll_of_an_unchanged_run_is_one_query_and_nothing_is_written_as_json(
    info, django_assert_num_queries, monkeypatch
):
    TaskMessage.objects.create(run=info, index=0, attempt=1, seq=1, body="a")
    TaskInfo.objects.update(message_count=1)
    encoded = []
    monkeypatch.setattr("taskapi.views.json.encode", encoded.append)
    with django_assert_num_queries(1):
        assert get(info.uuid, If_None_Match='"7"').status_code == 304
    assert encoded == []
    monkeypatch.undo()
    with django_assert_num_queries(2):
        assert get(info.uuid, If_None_Match='"6"').status_code == 200


def test_a_tag_tells_nothing_to_who_may_not_see_the_run(info):
    TaskInfo.objects.update(user=User.objects.create(username="ann"))
    assert get(info.uuid, If_None_Match="*").status_code == 404
    assert "ETag" not in get(info.uuid, If_None_Match='"7"')
    assert get(uuid4(), If_None_Match="*").status_code == 404


def test_no_other_answer_has_a_tag_that_is_not_the_runs(info):
    client = Client()
    client.raise_request_exception = False
    cancelled = client.post(f"/tasks/{info.uuid}/cancel/", headers={"If-None-Match": "*"})
    assert (cancelled.status_code, cancelled["ETag"]) == (202, '"7c"')
    assert get(info.uuid)["ETag"] == '"7c"'
    started = client.post("/tasks/", {"task": "keep"}, content_type="application/json")
    assert get(started.json()["uuid"], If_None_Match=started["ETag"]).status_code == 304


def test_a_head_has_the_head_of_a_get(info):
    got, head = get(info.uuid), Client().head(f"/tasks/{info.uuid}/")
    assert (head.status_code, head["ETag"], head.content) == (200, got["ETag"], b"")
    assert Client().head(f"/tasks/{info.uuid}/", headers={"If-None-Match": got["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    "middleware",
    [[GZIP], [CONDITIONAL], [LOCALE], [COMMON], [GZIP, CONDITIONAL], [CONDITIONAL, GZIP], [CONDITIONAL, COMMON, GZIP]],
    ids=lambda middleware: "+".join(path.rpartition(".")[2] for path in middleware),
)
def test_tags_work_with_djangos_own_middleware(info, project, middleware):
    project.MIDDLEWARE = middleware
    TaskInfo.objects.update(inputs={"text": "text " * 100})  # worth compressing
    gzip = {"Accept-Encoding": "gzip"}
    whole = get(info.uuid, **gzip)
    assert whole.status_code == 200
    assert whole["ETag"].removeprefix("W/") == '"7"'
    for known in (whole["ETag"], '"7"', 'W/"7"', "*", '"6", W/"7"'):
        answer = get(info.uuid, If_None_Match=known, **gzip)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer["ETag"].removeprefix("W/") == '"7"'
        assert answer.get("Retry-After") == "1"
        assert answer.get("Cache-Control") == "no-store"
    TaskInfo.objects.update(seq=8)
    assert get(info.uuid, If_None_Match=whole["ETag"], **gzip).status_code == 200


def test_the_language_of_a_client_is_no_state_of_the_run(info, project):
    project.MIDDLEWARE = [LOCALE]
    bodies = {get(info.uuid, Accept_Language=language).content for language in ("de", "fr", "en")}
    assert len(bodies) == 1


def test_a_hint_has_one_text_for_each_run(info, monkeypatch):
    """The tag says only whether there is one."""
    monkeypatch.setattr(attendance, "KEPT", 0.0)
    monkeypatch.setattr("tests.support.backends.ListBackend.has_worker", lambda self, queue: False)
    TaskInfo.objects.update(status="pending", created=timezone.now() - timedelta(minutes=1))
    first = get(info.uuid)
    assert first["ETag"] == '"7h"'
    assert [json.loads(get(info.uuid).content)["hint"] for _ in range(2)] == [first.json()["hint"]] * 2
