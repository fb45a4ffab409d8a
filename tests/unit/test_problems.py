"""Refusals as problem details, and what a throttled client is told."""

import json
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.views.problems import problem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]

JSON, PROBLEM = "application/json", "application/problem+json"


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter(), "status": IntParameter(required=False)}


class Teapot(BasePermission):
    def has_permission(self, request, view):
        error = APIException({"detail": "Short and stout.", "spout": True})
        error.status_code = 460  # no status of any RFC
        raise error


class Strange(APIException):
    """With a status that no list of HTTP's has."""

    status_code = 461


class Picky(BasePermission):
    """Refuses with a list, as a class of a project may."""

    def has_permission(self, request, view):
        raise Strange(["one", "two"])


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    cache.clear()
    return settings


@pytest.fixture
def runs():
    ann = User.objects.create(username="ann")
    return {
        "going": TaskInfo.objects.create(task="add", status="running", attempt=1).uuid,
        "ended": TaskInfo.objects.create(task="add", status="succeeded", attempt=1).uuid,
        "ann's": TaskInfo.objects.create(task="add", user=ann).uuid,
        "none": uuid4(),
    }


def ask(method, path, body=None, accept=PROBLEM, **headers):
    data = {} if body is None else {"data": body if isinstance(body, str) else json.dumps(body)}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    content_type = sent.pop("Content-Type", JSON)
    accepts = {} if accept is None else {"Accept": accept}
    return Client().generic(method, path, content_type=content_type, headers=sent | accepts, **data)


def both(method, path, body=None, **headers):
    """The answer as JSON and as problem details, which must say the same."""
    plain, refusal = (ask(method, path, body, accept, **headers) for accept in (JSON, PROBLEM))
    assert (plain.status_code, plain["Content-Type"]) == (refusal.status_code, JSON)
    assert refusal["Content-Type"] == PROBLEM
    assert plain["Cache-Control"] == refusal["Cache-Control"] == "no-store"
    plain, refusal = json.loads(plain.content), json.loads(refusal.content)
    assert (refusal.pop("type"), refusal.pop("title") != "") == ("about:blank", True)
    return plain, refusal


# Who gets them


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (PROBLEM, PROBLEM),
        (f"{PROBLEM}, {JSON}", PROBLEM),
        (f"{JSON}, {PROBLEM}", JSON),
        (f"{JSON};q=0.5, {PROBLEM}", PROBLEM),
        (f"{PROBLEM};q=0.5, {JSON}", JSON),
        (f"{PROBLEM};q=0.5, {JSON};q=0.4", PROBLEM),
        (f"{PROBLEM}, */*;q=0.1", PROBLEM),
        (f"{PROBLEM}, */*", PROBLEM),
        (f"text/html, {PROBLEM}, */*;q=0.8", PROBLEM),
        (f"{PROBLEM};q=0, {JSON}", JSON),
        (f"{PROBLEM};q=0", JSON),
        (f"{PROBLEM};q=x", PROBLEM),
        ("text/html", JSON),
        ("text/event-stream", JSON),
        ("nonsense", JSON),
        ("é;;;,/,", JSON),
        (f"{PROBLEM}," * 2_000, PROBLEM),
    ],
)
def test_problem_details_are_for_who_prefers_them(accept, kind):
    answer = ask("POST", "/tasks/", {"task": "nothing"}, accept)
    assert answer["Content-Type"] == kind
    if answer.status_code != 406:
        assert (answer.status_code, ("title" in answer.json())) == (400, kind == PROBLEM)


@pytest.mark.parametrize("accept", [PROBLEM, f"{PROBLEM}, {JSON};q=0.5", f"{PROBLEM}, */*"])
def test_what_is_no_refusal_is_json_for_all(accept, runs):
    started = ask("POST", "/tasks/", {"task": "add", "inputs": {"a": 1}}, accept)
    assert (started.status_code, started["Content-Type"], started.json()["task"]) == (201, JSON, "add")
    found = ask("GET", f"/tasks/{runs['going']}/", accept=accept)
    assert (found.status_code, found["Content-Type"], found.json()["uuid"]) == (200, JSON, str(runs["going"]))
    known = ask("GET", f"/tasks/{runs['going']}/", accept=accept, If_None_Match=found["ETag"])
    assert (known.status_code, known.content) == (304, b"")


# What they say


def test_fields_are_beside_the_members_of_the_rfc():
    plain, refusal = both("POST", "/tasks/", {"task": "add", "inputs": {"a": "x", "c": 1}})
    assert list(plain) == ["inputs"]
    assert refusal.pop("status") == 400
    detail = refusal.pop("detail")
    assert refusal == plain
    assert set(plain["inputs"]) == {"a", "c"}
    for name, sentences in plain["inputs"].items():
        for sentence in sentences:
            assert f"inputs: {name}: {sentence}" in detail


@pytest.mark.parametrize("accept", [JSON, PROBLEM])
def test_a_field_of_inputs_may_be_called_as_a_member(accept):
    answer = ask("POST", "/tasks/", {"task": "add", "inputs": {"a": 1, "status": "x"}}, accept)
    assert list(answer.json()["inputs"]) == ["status"]


@pytest.mark.parametrize(
    ("call", "headers", "status"),
    [
        (("POST", "/tasks/", "{"), {}, 400),
        (("POST", "/tasks/", "[" * 100_000), {}, 400),
        (("POST", "/tasks/", []), {}, 400),
        (("POST", "/tasks/", {"task": "nothing"}), {}, 400),
        (("POST", "/tasks/", {"task": "add", "inputs": []}), {}, 400),
        (("POST", "/tasks/", {"task": "add", "inputs": {"a": 1}}), {"Idempotency_Key": "k" * 256}, 400),
        (("GET", "/tasks/going/?after=x", None), {}, 400),
        (("GET", "/tasks/going/", None), {"Authorization": "Basic ???"}, 401),
        (("GET", "/tasks/none/", None), {}, 404),
        (("GET", "/tasks/ann's/", None), {}, 404),
        (("GET", "/tasks/none/events/", None), {}, 404),
        (("GET", "/tasks/ann's/events/", None), {}, 404),
        (("GET", "/tasks/going/events/?after=x", None), {}, 400),
        (("GET", "/tasks/going/events/?format=x", None), {}, 400),
        (("PUT", "/tasks/going/", {}), {}, 405),
        (("POST", "/tasks/going/events/", {}), {}, 405),
        (("GET", "/tasks/going/cancel/", None), {}, 405),
        (("POST", "/tasks/ended/cancel/", None), {}, 409),
        (("POST", "/tasks/going/retry/", None), {}, 409),
        (("POST", "/tasks/", "a=1"), {"Content_Type": "text/plain"}, 415),
    ],
)
def test_each_refusal_says_the_same_both_ways(project, runs, call, headers, status):
    method, path, body = call
    project.TASK_API_AUTHENTICATION_CLASSES = [BasicAuthentication, SessionAuthentication]
    for name, uuid in runs.items():
        path = path.replace(f"/{name}/", f"/{uuid}/")
    plain, refusal = both(method, path, body, **headers)
    assert refusal["status"] == status
    assert isinstance(refusal["detail"], str)
    assert plain.items() <= refusal.items() or "detail" not in plain


def test_a_used_key_is_a_problem():
    for a, status in ((1, 201), (2, 422)):
        answer = ask("POST", "/tasks/", {"task": "add", "inputs": {"a": a}}, Idempotency_Key="k")
        assert answer.status_code == status
    assert (answer["Content-Type"], answer.json()["code"]) == (PROBLEM, "conflict")


def test_a_body_that_is_too_large_is_a_problem(project):
    project.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    _, refusal = both("POST", "/tasks/", {"task": "add", "inputs": {"a": "1" * 100}})
    assert (refusal["status"], refusal["code"]) == (413, "too_large")


def test_who_has_no_login_gets_a_problem_and_a_challenge(project):
    project.TASK_API_PERMISSIONS_CLASSES = [IsAuthenticated]
    project.TASK_API_AUTHENTICATION_CLASSES = [BasicAuthentication]
    answer = ask("POST", "/tasks/", {"task": "add"})
    assert (answer.status_code, answer["Content-Type"]) == (401, PROBLEM)
    assert answer["WWW-Authenticate"].startswith("Basic")
    project.TASK_API_AUTHENTICATION_CLASSES = [SessionAuthentication]
    answer = ask("POST", "/tasks/", {"task": "add"})
    assert (answer.status_code, answer.json()["title"], answer.json()["code"]) == (
        403,
        "Forbidden",
        "not_authenticated",
    )


def test_a_refusal_of_the_projects_own_is_a_problem_too(project, runs):
    project.TASK_API_PERMISSIONS_CLASSES = [Teapot]
    _, refusal = both("GET", f"/tasks/{runs['going']}/")
    assert refusal["status"] == 460
    assert (refusal["detail"], refusal["spout"]) == ("Short and stout.", "True")
    project.TASK_API_PERMISSIONS_CLASSES = [Picky]
    plain, refusal = both("GET", f"/tasks/{runs['going']}/")
    assert plain == ["one", "two"]
    assert (refusal["errors"], refusal["detail"]) == (["one", "two"], "one; two")


def test_fields_that_are_called_as_members_give_way():
    found = problem({"status": ["No such status."], "type": ["x"], "title": ["y"]}, 400)
    assert (found["type"], found["title"], found["status"]) == ("about:blank", "Bad Request", 400)
    assert found["detail"] == "status: No such status.; type: x; title: y"


def test_many_inputs_that_are_wrong_are_told_by_their_index():
    found = problem({"many": {0: {"a": ["No."]}, 7: {"non_field_errors": ["Never."]}}}, 400)
    assert found["detail"] == "many: 0: a: No.; many: 7: non_field_errors: Never."


# The database is away


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tasks/", {"task": "add", "inputs": {"a": 1}}),
        ("GET", "/tasks/going/", None),
        ("GET", "/tasks/going/events/", None),
        ("POST", "/tasks/going/cancel/", {}),
        ("POST", "/tasks/ended/retry/", {}),
    ],
)
def test_while_the_database_is_away_a_client_is_told_to_come_back(runs, monkeypatch, method, path, body):
    def away(*args, **kwargs):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr("taskapi.store.rows.read", away)
    monkeypatch.setattr("taskapi.runs.save", away)
    for name, uuid in runs.items():
        path = path.replace(f"/{name}/", f"/{uuid}/")
    _, refusal = both(method, path, body)
    assert (refusal["status"], refusal["code"]) == (503, "unavailable")
    assert "closed" not in refusal["detail"]
    assert int(ask(method, path, body)["Retry-After"]) > 0


# Throttles


class PerMinute(SimpleRateThrottle):
    scope = "per_minute"
    rate = "2/min"

    def get_cache_key(self, request, view):
        return self.scope


class PerHour(PerMinute):
    scope = "per_hour"
    rate = "2/hour"


class Never(BaseThrottle):
    """Has no rate, and does not know how long it lasts."""

    def allow_request(self, request, view):
        return False


class Soon(Never):
    scope = "soon"

    def wait(self):
        return 0.2


class Backwards(Never):
    """Its clock was set."""

    def wait(self):
        return -5.0


def throttled(project, *classes, accept=JSON):
    project.TASK_API_THROTTLE_CLASSES = list(classes)
    for _ in range(3):
        answer = ask("POST", "/tasks/", {"task": "add", "inputs": {"a": 1}}, accept)
    assert answer.status_code == 429
    return answer


def fields(answer):
    return {name: answer.get(name) for name in ("Retry-After", "RateLimit", "RateLimit-Policy")}


def test_a_throttled_client_is_told_when_to_come_back(project):
    answer = throttled(project, PerMinute)
    seconds = int(answer["Retry-After"])
    assert 0 < seconds <= 60
    assert answer["RateLimit"] == f'"per_minute";r=0;t={seconds}'
    assert answer["RateLimit-Policy"] == '"per_minute";q=2;w=60'
    assert answer.json()["code"] == "throttled"


def test_of_several_throttles_each_that_refuses_is_named(project):
    answer = throttled(project, PerMinute, PerHour)
    names = [item.split(";")[0] for item in answer["RateLimit"].split(", ")]
    assert names == ['"per_minute"', '"per_hour"']
    assert answer["RateLimit-Policy"] == '"per_minute";q=2;w=60, "per_hour";q=2;w=3600'
    assert 60 < int(answer["Retry-After"]) <= 3600


def test_a_throttle_that_allows_is_not_named(project):
    class Generous(PerHour):
        rate = "100/hour"

    assert "per_hour" not in throttled(project, PerMinute, Generous)["RateLimit"]


def test_a_throttle_without_a_rate_says_what_it_knows(project):
    assert fields(throttled(project, Never)) == {
        "Retry-After": "1", "RateLimit": '"Never";r=0', "RateLimit-Policy": None,
    }  # fmt: skip
    assert fields(throttled(project, Soon)) == {
        "Retry-After": "1", "RateLimit": '"soon";r=0;t=1', "RateLimit-Policy": None,
    }  # fmt: skip


def test_a_time_that_is_over_is_none(project):
    answer = throttled(project, Backwards)
    assert (int(answer["Retry-After"]) >= 0, answer["RateLimit"]) == (True, '"Backwards";r=0;t=0')


def test_a_throttled_client_may_get_problem_details(project):
    answer = throttled(project, PerMinute, accept=PROBLEM)
    assert (answer["Content-Type"], answer.json()["title"]) == (PROBLEM, "Too Many Requests")
    assert answer.json()["detail"].startswith("Request was throttled.")
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(answer.headers)


def test_a_throttle_is_asked_to_start_and_to_retry_alone(project, runs):
    throttled(project, PerMinute)
    assert ask("POST", f"/tasks/{runs['ended']}/retry/", {}).status_code == 429
    assert ask("GET", f"/tasks/{runs['going']}/").status_code == 200
    assert ask("GET", f"/tasks/{runs['ended']}/events/", accept="text/event-stream").status_code == 200
    assert ask("POST", f"/tasks/{runs['going']}/cancel/", {}).status_code == 202


def test_a_name_that_no_header_can_hold_is_no_error(project):
    class Odd(PerMinute):
        scope = 'a "quoted"\nnäme 😀'

        def get_cache_key(self, request, view):
            return "odd"

    answer = throttled(project, Odd)
    assert answer["RateLimit"].startswith('"a _quoted__n_me _";r=0;t=')
