"""``GET tasks/types/``: what the caller may run."""

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAdminUser, IsAuthenticated
from rest_framework.throttling import UserRateThrottle

from taskapi.params import IntParameter, Parameter
from taskapi.tasks import Task

pytestmark = pytest.mark.django_db


class OneADay(UserRateThrottle):
    rate = "1/day"


class Second(Task):
    """The second.

    With a line more.
    """

    name = "b"
    inputs = {"a": IntParameter(min_value=1)}
    outputs = {"sum": IntParameter(required=False)}
    throttle_classes = (OneADay,)


class First(Second):
    name = "a"


class Members(First):
    name = "members"
    permission_classes = (IsAuthenticated,)


class Staff(First):
    name = "staff"
    permission_classes = (IsAdminUser,)


class ReadOnly(BasePermission):
    def has_permission(self, request, view):
        return request.method in SAFE_METHODS


class OnlyByName(BasePermission):
    """Judges by what is to be started."""

    def has_permission(self, request, view):
        return request.method in SAFE_METHODS or (request.data["task"] == "b" and not request.data["inputs"])


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Second, Staff, First, Members]
    cache.clear()
    return settings


@pytest.fixture
def client():
    return Client()


def names(client):
    response = client.get("/tasks/types/")
    assert response.status_code == 200, response.content
    return [found["name"] for found in response.json()]


def test_a_type_is_the_description_of_its_task(client):
    response = client.get("/tasks/types/")
    assert response["Cache-Control"] == "no-store"
    assert response.json() == [First.describe(), Second.describe()]
    assert response.json()[1]["description"] == "The second.\n\nWith a line more."


def test_the_list_has_what_the_caller_may_run_sorted_by_name(client):
    assert names(client) == ["a", "b"]
    client.force_login(User.objects.create(username="ann"))
    assert names(client) == ["a", "b", "members"]
    client.force_login(User.objects.create(username="boss", is_staff=True))
    assert names(client) == ["a", "b", "members", "staff"]


def test_the_verdict_is_that_of_the_call_that_starts_a_run(client, settings):
    settings.TASK_API_PERMISSIONS_CLASSES = [ReadOnly]
    assert names(client) == []
    settings.TASK_API_PERMISSIONS_CLASSES = [OnlyByName]
    assert names(client) == ["b"]


def test_who_may_not_call_it_is_refused(client, settings):
    settings.TASK_API_PERMISSIONS_CLASSES = [IsAuthenticated]
    assert client.get("/tasks/types/").status_code == 403


def test_no_throttle_is_asked(client, settings):
    settings.TASK_API_THROTTLE_CLASSES = [OneADay]
    assert [client.get("/tasks/types/").status_code for _ in range(3)] == [200] * 3


class Raises(Parameter):
    def json_schema(self):
        raise RuntimeError("no schema")


class NotJSON(Parameter):
    def json_schema(self):
        return {"default": object()}


@pytest.mark.parametrize("parameter", [Raises(), NotJSON()])
def test_a_task_that_cannot_be_described_takes_no_other_along(client, settings, caplog, parameter):
    class Odd(First):
        name = "odd"
        inputs = {"value": parameter}

    settings.TASK_API_BACKGROUND_TASKS = [First, Odd]
    first, odd = client.get("/tasks/types/").json()
    assert (first, odd) == (First.describe(), {"name": "odd", "description": "", "inputs": {}, "outputs": {}})
    assert "'odd' cannot be described" in caplog.text


def test_types_is_no_uuid_and_takes_no_other_method(client):
    assert client.post("/tasks/types/").status_code == 405
