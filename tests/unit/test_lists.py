"""``GET tasks/`` and ``POST tasks/`` with `many`: runs in lists."""

from base64 import b64encode

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.db.models.functions import Now
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.settings import api_settings
from rest_framework.throttling import UserRateThrottle

from taskapi.models import JSONTextField, TaskInfo, TaskMessage
from taskapi.params import IntParameter, StringParameter
from taskapi.protocol import MANY_LENGTH, represent
from taskapi.protocol.states import Status
from taskapi.runs import listing
from taskapi.tasks import Task
from taskapi.testing import run_task
from taskapi.views import pages

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter()}
    outputs = {"sum": IntParameter()}

    def run(self, a):
        self.add_message("adding")
        return a + 1


class Echo(Task):
    name = "echo"
    inputs = {
        "text": StringParameter(max_length=None),
        "times": IntParameter(default=1),
        "said": IntParameter(default=0),
    }
    outputs = {"text": StringParameter()}

    def run(self, text, times, said):
        for _ in range(said):
            self.add_message(text)
        return text * times


class Asked(BasePermission):
    """Lets everybody through, and counts."""

    asked: list[str] = []

    def has_permission(self, request, view):
        self.asked.append(request.method)
        return True


class Guarded(Add):
    name = "guarded"
    permission_classes = (Asked,)


class Nobodys(BasePermission):
    def has_permission(self, request, view):
        return False


class NotThisOne(BasePermission):
    """Hides each run of an odd number. It looks at what a list does not need."""

    def has_object_permission(self, request, view, obj):
        if obj.inputs["a"] % 2 or obj.user.username == "nobody" or obj.outputs == "x":
            raise Http404
        return True


class ThreeADay(UserRateThrottle):
    rate = "3/day"


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add, Echo, Guarded]
    Asked.asked.clear()
    cache.clear()
    return settings


@pytest.fixture
def ann():
    return User.objects.create_user("ann", password="secret")


@pytest.fixture
def staff():
    return User.objects.create_user("staff", is_staff=True)


@pytest.fixture
def client(ann):
    """Ann's browser."""
    client = Client()
    client.force_login(ann)
    return client


def get(client, **query):
    response = client.get("/tasks/", query)
    assert response.status_code == 200, response.content
    return response.json()


def uuids(body):
    return [item["uuid"] for item in body["results"]]


def ids(*infos):
    return [str(info.uuid) for info in infos]


def refusal(client, **query):
    response = client.get("/tasks/", query)
    return response.status_code, response.json()


# Whose


def test_a_user_has_the_own_runs_newest_first(client, ann):
    first, second, third = Add.start_many([{"a": 1}, {"a": 2}, {"a": 3}], user=ann)
    Add.start({"a": 4})
    Add.start({"a": 5}, user=User.objects.create(username="bob"))
    response = client.get("/tasks/")
    assert response["Cache-Control"] == "no-store"
    assert response.json().keys() == {"next", "previous", "results"}
    assert uuids(response.json()) == ids(third, second, first)


def test_an_anonymous_caller_has_none_not_even_anonymous_runs(settings):
    Add.start({"a": 1})
    assert get(Client()) == {"next": None, "previous": None, "results": []}
    settings.REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None}
    settings.TASK_API_AUTHENTICATION_CLASSES = []
    assert get(Client()) == {"next": None, "previous": None, "results": []}


def test_staff_lists_the_runs_of_all_owners_if_asked(client, staff, ann):
    runs = [Add.start({"a": 1}), Add.start({"a": 2}, user=ann), Add.start({"a": 3}, user=staff)]
    client.force_login(staff)
    assert uuids(get(client, owner="all")) == ids(*runs[::-1])
    assert uuids(get(client)) == ids(runs[2])


def test_others_may_not(client):
    for caller in (client, Client()):
        status, body = refusal(caller, owner="all")
        assert (status, body["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("owner", ["", "me", "ann", "ALL"])
def test_another_owner_is_refused(client, staff, owner):
    client.force_login(staff)
    status, body = refusal(client, owner=owner)
    assert (status, body.keys()) == (400, {"owner"})


# Which


def test_runs_of_some_tasks(client, ann):
    add, echo, guarded = (
        Add.start({"a": 1}, user=ann),
        Echo.start({"text": ""}, user=ann),
        Guarded.start({"a": 1}, user=ann),
    )
    assert uuids(get(client, task="add")) == ids(add)
    assert uuids(get(client, task=["add", "guarded"])) == ids(guarded, add)
    assert uuids(get(client, task=["echo", "no such", "\0", ""])) == ids(echo)
    assert uuids(get(client, task="\0")) == []


ENDS = {
    Status.SUCCEEDED: {"outputs": {}, "finished": Now()},
    Status.FAILED: {"error": {"code": "task_error", "message": "No."}, "finished": Now()},
    Status.CANCELLED: {"finished": Now()},
}


def put(uuid, status, **fields):
    """Give the run that status, and what a run of that status has."""
    TaskInfo.objects.filter(uuid=uuid).update(status=status.value, **{**ENDS.get(status, {}), **fields})


def test_runs_of_some_statuses(client, ann):
    infos = Add.start_many([{"a": n} for n in range(len(Status))], user=ann)
    for info, status in zip(infos, Status, strict=True):
        put(info.uuid, status)
    pending, running, *final = infos
    assert uuids(get(client, status="running")) == ids(running)
    assert uuids(get(client, status=["running", "pending"], task="add")) == ids(running, pending)
    assert uuids(get(client, status=["succeeded", "failed", "cancelled"])) == ids(*final[::-1])


@pytest.mark.parametrize("status", ["", "done", "PENDING", "\0"])
def test_an_unknown_status_is_refused_with_those_that_there_are(client, status):
    code, body = refusal(client, status=["pending", status])
    (sentence,) = body.pop("status")
    assert (code, body) == (400, {})
    assert all(status.value in sentence for status in Status)


# Pages


def walk(client, **query):
    """The pages from the first to the last."""
    found = [get(client, **query)]
    while found[-1]["next"]:
        found.append(client.get(found[-1]["next"]).json())
    return found


def test_pages_follow_one_another_both_ways(client, ann):
    infos = Add.start_many([{"a": n} for n in range(7)], user=ann)
    forth = walk(client, page_size=3, task="add")
    assert [len(page["results"]) for page in forth] == [3, 3, 1]
    assert [uuid for page in forth for uuid in uuids(page)] == ids(*infos[::-1])
    assert uuids(client.get(forth[2]["previous"]).json()) == uuids(forth[1])
    assert forth[0]["previous"] is None
    assert forth[0]["next"].startswith("http://testserver/tasks/?")


def test_what_is_started_meanwhile_moves_nothing(client, ann):
    Add.start_many([{"a": n} for n in range(4)], user=ann)
    first = get(client, page_size=2)
    Add.start_many([{"a": n} for n in range(10, 13)], user=ann)
    assert [item["inputs"]["a"] for item in client.get(first["next"]).json()["results"]] == [1, 0]


def test_the_size_of_a_page(client, ann, settings):
    Add.start_many([{"a": n} for n in range(120)], user=ann)
    assert (pages.PAGE_SIZE, pages.MOST_SIZE) == (50, 100)
    sizes = {"1": 1, "100": 100, "101": 100, "0": 50, "-1": 50, "x": 50, "": 50, "9" * 5_000: 50}
    assert {size: len(get(client, page_size=size)["results"]) for size in sizes} == sizes
    settings.REST_FRAMEWORK = {"PAGE_SIZE": 7}
    assert api_settings.PAGE_SIZE == len(get(client)["results"]) == 7


def cursor(position):
    return b64encode(f"p={position}".encode()).decode()


@pytest.mark.parametrize("made_up", [*map(cursor, ["abc", "1.5", "", "9" * 5_000, "\0"]), "x"])
def test_a_cursor_that_was_made_up_is_not_found(client, made_up):
    status, body = refusal(client, cursor=made_up)
    assert (status, body["code"]) == (404, "not_found")


@pytest.mark.parametrize(("position", "found"), [(9**40, 1), (-(9**40), 0)])
def test_a_cursor_beyond_all_ids_is_harmless(client, ann, position, found):
    Add.start({"a": 1}, user=ann)
    assert len(get(client, cursor=cursor(position))["results"]) == found


# Permissions


def test_a_tasks_own_classes_are_asked_once_for_a_page(client, ann):
    infos = Guarded.start_many([{"a": n} for n in range(5)], user=ann)
    assert uuids(get(client)) == ids(*infos[::-1])
    assert Asked.asked == ["GET"]


def test_runs_of_a_task_that_says_no_are_left_out(client, ann, monkeypatch):
    add, guarded = Add.start({"a": 1}, user=ann), Guarded.start({"a": 1}, user=ann)
    monkeypatch.setattr(Guarded, "permission_classes", (Nobodys,))
    assert uuids(get(client)) == ids(add)
    assert client.get(f"/tasks/{guarded.uuid}/").status_code == 403


def test_runs_for_which_an_object_permission_says_no_are_left_out(client, ann, monkeypatch):
    infos = Guarded.start_many([{"a": n} for n in range(4)], user=ann)
    monkeypatch.setattr(Guarded, "permission_classes", (NotThisOne,))
    page = get(client, page_size=2)
    assert [item["inputs"]["a"] for item in page["results"]] == [2]
    assert [item["inputs"]["a"] for item in client.get(page["next"]).json()["results"]] == [0]
    assert [client.get(f"/tasks/{info.uuid}/").status_code for info in infos] == [200, 404, 200, 404]


def test_the_project_may_require_a_login(client, settings):
    settings.TASK_API_PERMISSIONS_CLASSES = [IsAuthenticated]
    assert get(client)["results"] == []
    assert refusal(Client())[1]["code"] == "not_authenticated"


def test_a_list_asks_no_throttle_and_has_a_head(client, settings):
    settings.TASK_API_THROTTLE_CLASSES = [ThreeADay]
    assert [get(client)["results"] for _ in range(5)] == [[]] * 5
    assert client.head("/tasks/").status_code == client.options("/tasks/").status_code == 200


def test_runs_of_tasks_that_are_gone_are_shown(client, ann, settings):
    info = Add.start({"a": 1}, user=ann)
    settings.TASK_API_BACKGROUND_TASKS = [Echo]
    assert uuids(get(client)) == ids(info)


# Items


def test_an_item_is_the_representation(client, ann):
    finished = run_task(Add, {"a": 1}, user=ann).info
    waiting = Add.start({"a": 2}, user=ann)
    for item, info in zip(get(client)["results"], (waiting, finished), strict=True):
        assert item == represent(info, info.messages)
        assert item == client.get(f"/tasks/{info.uuid}/").json()


def test_an_item_says_if_no_worker_takes_its_run(client, ann, monkeypatch):
    Add.start({"a": 1}, user=ann)
    hint = {"code": "no_worker", "message": "Start one."}
    monkeypatch.setattr(listing, "hint_for", lambda info: hint)
    assert get(client)["results"][0]["hint"] == hint


LONG = "x" * listing.LISTED_BYTES
FITS = "x" * (listing.LISTED_BYTES - len('{"text":""}'))


@pytest.mark.parametrize(
    ("given", "omitted"),
    [
        ({"text": FITS}, None),
        ({"text": FITS + "x"}, ["inputs", "outputs"]),
        ({"text": "x" * 20_000, "times": 2}, ["outputs"]),
        ({"text": "x" * 1000, "said": 32}, None),
        ({"text": "x" * 1000, "said": 33}, ["messages"]),
        ({"text": "", "said": listing.LISTED_MESSAGES}, None),
        ({"text": "", "said": listing.LISTED_MESSAGES + 1}, ["messages"]),
        ({"text": LONG, "said": 1}, ["inputs", "outputs", "messages"]),
    ],
    ids=["fits", "inputs", "outputs", "fitting messages", "long messages", "so many", "too many", "all"],
)
def test_what_is_too_large_for_a_list_is_left_out_and_named(client, ann, given, omitted):
    info = run_task(Echo, given, user=ann).info
    (item,) = get(client)["results"]
    whole = client.get(f"/tasks/{info.uuid}/").json()
    assert item.pop("omitted", None) == omitted
    assert item == {name: value for name, value in whole.items() if name not in (omitted or ())}


def test_a_long_error_is_left_out_too(client, ann):
    info = Add.start({"a": 1}, user=ann)
    put(info.uuid, Status.FAILED, error={"code": "task_error", "message": LONG})
    (item,) = get(client)["results"]
    assert (item["omitted"], "error" in item) == (["error"], False)


def test_messages_that_are_null(client, ann):
    info = Add.start({"a": 1}, user=ann)
    TaskMessage.objects.create(run=info, index=0, attempt=1, seq=1, body=None)
    TaskInfo.objects.filter(pk=info.pk).update(message_count=1)
    assert get(client)["results"][0]["messages"] == [None]


def test_what_is_said_after_the_run_was_read_is_not_shown(ann):
    info = run_task(Add, {"a": 1}, user=ann).info
    (read,) = listing.read(listing.select(ann))
    TaskMessage.objects.create(run=info, index=1, attempt=1, seq=99, body="later")
    assert listing.represent_all([read])[0]["messages"] == ["adding"]


def test_what_is_left_out_is_not_read(client, ann, monkeypatch):
    run_task(Echo, {"text": LONG, "said": 1}, user=ann)
    convert, lengths = JSONTextField.from_db_value, []

    def from_db_value(self, value, *args):
        lengths.append(len(value or ""))
        return convert(self, value, *args)

    monkeypatch.setattr(JSONTextField, "from_db_value", from_db_value)
    assert get(client)["results"][0]["omitted"] == ["inputs", "outputs", "messages"]
    assert lengths
    assert max(lengths) <= listing.LISTED_BYTES


LOGIN = 2  # queries that find the session and its user


def queries(client, **query):
    with CaptureQueriesContext(connection) as captured:
        found = len(get(client, **query)["results"])
    return found, [entry["sql"] for entry in captured.captured_queries]


@pytest.mark.parametrize("everybodys", [False, True])
def test_a_large_page_takes_no_more_queries_than_a_small_one(client, ann, staff, monkeypatch, everybodys):
    monkeypatch.setattr(Guarded, "permission_classes", (NotThisOne,))
    for number in range(4):
        run_task(Guarded, {"a": 2 * number}, user=ann)
        run_task(Echo, {"text": LONG if number else "short", "said": number}, user=ann)
    query = {"owner": "all"} if everybodys else {}
    client.force_login(staff if everybodys else ann)
    few, many = queries(client, page_size=2, **query), queries(client, page_size=8, **query)
    assert (few[0], many[0]) == (2, 8)
    assert len(few[1]) == len(many[1]) == LOGIN + 3, many[1]


def test_a_page_of_runs_that_have_said_nothing_takes_one(client, ann):
    Add.start_many([{"a": n} for n in range(5)], user=ann)
    assert len(queries(client)[1]) == LOGIN + 1


# Many at once


def post(client, **body):
    headers = body.pop("headers", {})
    return client.post("/tasks/", body, content_type="application/json", headers=headers)


MANY = [{"a": 1}, {"a": 2}, {"a": 3}]


def test_many_are_started_and_represented_in_order(client, ann):
    response = post(client, task="add", many=MANY)
    assert (response.status_code, "Location" in response, response["Cache-Control"]) == (201, False, "no-store")
    infos = list(TaskInfo.objects.order_by("id"))
    assert response.json() == [represent(info, []) for info in infos]
    assert [info.inputs for info in infos] == MANY
    assert {info.user for info in infos} == {ann}


def test_what_is_wrong_is_said_by_index_and_none_is_started(client):
    response = post(client, task="add", many=[{"a": 1}, {"a": "x"}, {}, "no"])
    assert (response.status_code, TaskInfo.objects.count()) == (400, 0)
    assert response.json() == {
        "many": {
            "1": {"a": ["A valid integer is required."]},
            "2": {"a": ["This field is required."]},
            "3": ["Expected an object with the names: a. Got str."],
        }
    }


@pytest.mark.parametrize("many", [[], {}, {"a": 1}, "x", None, 1, [{"a": 1}] * (MANY_LENGTH + 1)])
def test_what_is_no_list_of_1_to_1000_is_refused(client, many):
    response = post(client, task="add", many=many)
    assert (response.status_code, response.json().keys(), TaskInfo.objects.count()) == (400, {"many"}, 0)
    assert all(isinstance(sentence, str) for sentence in response.json()["many"])


def test_1000_are_started():
    assert MANY_LENGTH == 1_000
    response = post(Client(), task="add", many=[{"a": n} for n in range(1_000)])
    assert [run["inputs"]["a"] for run in response.json()] == list(range(1_000))


@pytest.mark.parametrize("inputs", [{}, {"a": 1}, None])
def test_inputs_beside_many_are_refused(client, inputs):
    response = post(client, task="add", inputs=inputs, many=MANY)
    assert (response.status_code, response.json().keys()) == (400, {"many"})


def test_a_task_that_is_not_there(client):
    assert post(client, task="no such", many=MANY).json() == {"task": ["There is no task named 'no such'."]}


def test_many_with_a_key_are_started_once(client):
    key = {"Idempotency-Key": "K"}
    first = post(client, task="add", many=MANY, headers=key)
    again = post(client, task="add", many=MANY, headers={"Idempotency-Key": '"K"'})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    for other in ({"many": MANY[:2]}, {"inputs": MANY[0]}):
        assert post(client, task="add", **other, headers=key).status_code == 422
    assert TaskInfo.objects.count() == 3


def test_the_second_answer_shows_the_runs_as_a_list_does(client):
    key = {"Idempotency-Key": "K"}
    body = {"task": "echo", "many": [{"text": LONG}, {"text": "short"}], "headers": key}
    first = post(client, **body).json()
    put(first[1]["uuid"], Status.SUCCEEDED, outputs={"text": "done"})
    again = post(client, **body).json()
    assert [item.get("omitted") for item in again] == [["inputs"], None]
    assert again[1]["outputs"] == {"text": "done"}


def test_permissions_are_asked_once_and_throttles_for_each_run(client, settings, monkeypatch):
    settings.TASK_API_THROTTLE_CLASSES = [ThreeADay]
    assert post(client, task="guarded", many=MANY[:2]).status_code == 201
    assert Asked.asked == ["POST"]
    refused = post(client, task="guarded", many=MANY[:2])
    assert (refused.status_code, int(refused["Retry-After"]) > 0) == (429, True)
    assert TaskInfo.objects.count() == 2


def test_a_caller_who_may_not_run_the_task_starts_none(client, monkeypatch):
    monkeypatch.setattr(Guarded, "permission_classes", (Nobodys,))
    assert post(client, task="guarded", many=MANY).status_code == 403
    assert TaskInfo.objects.count() == 0
