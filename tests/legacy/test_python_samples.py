"""The Python examples of the 1.x documentation, run by a worker."""

from collections.abc import Iterator

import httpx
import pytest

from tests.legacy import background
from tests.support.databases import Databases
from tests.support.stack import Stack
from tests.support.waiting import wait_for

SESSION = ["rest_framework.authentication.SessionAuthentication"]
LOGGED_IN = ["rest_framework.permissions.IsAuthenticated"]


class Samples(Stack):
    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": "tests.legacy.settings"}


@pytest.fixture(scope="module")
def stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    with Samples(databases.new("sqlite"), tmp_path_factory.mktemp("samples")) as stack:
        yield stack


def start(rest: httpx.Client, task: str, **inputs):
    return rest.post("/tasks/", json={"task": task, "inputs": inputs})


def run(rest: httpx.Client, task: str, **inputs):
    """Run the task; the representation of its finished run."""
    location = start(rest, task, **inputs).headers["Location"]

    def ended():
        found = rest.get(location).json()
        return found if found["finished"] else None

    return wait_for(ended)


@pytest.mark.parametrize(
    ("task", "inputs", "outputs"),
    [
        ("sum", {"numbers": [1, 2, 3]}, {"sum": 6}),
        ("sum", {"numbers": [0.5, 2]}, {"sum": 2.5}),
        ("sum", {"numbers": 7}, {"sum": 7}),
        ("my-task", {"name": "Ann", "count": 1}, {"output": "Some output"}),
        ("my-task", {"name": "Ann"}, {"output": "Some output"}),
        ("my-task", {"name": "Ann", "count": "6"}, {"output": "Some output"}),
        ("items", {"items": ["a", "b"]}, {"out": "a,b"}),
        ("nice-to-have", {"must_have": "m", "nice_to_have": "n"}, {"got": ["m", "'n'"]}),
        ("nice-to-have", {"must_have": "m"}, {"got": ["m", "None"]}),
        ("one-output", {}, {"out": "Foo"}),
        ("two-outputs", {}, {"out": "Foo", "count": 5}),
        ("wait", {"seconds": 0}, {}),
    ],
)
def test_a_sample_gives_its_outputs(rest, task, inputs, outputs):
    found = run(rest, task, **inputs)
    assert (found["status"], found["outputs"]) == ("succeeded", outputs)


@pytest.mark.parametrize(
    ("task", "inputs", "named"),
    [
        ("my-task", {}, "name"),
        ("my-task", {"name": "Ann", "count": "not a number"}, "count"),
        ("sum", {"numbers": ["not a number"]}, "numbers"),
        ("nice-to-have", {"nice_to_have": "n"}, "must_have"),
    ],
)
def test_a_call_with_missing_or_invalid_inputs_is_rejected(rest, task, inputs, named):
    response = start(rest, task, **inputs)
    assert (response.status_code, list(response.json()["inputs"])) == (400, [named])


def test_the_wait_sample_counts_towards_its_target(rest):
    found = run(rest, "wait", seconds=1)
    assert (found["progress"], found["target"]) == (1, 10)


def test_the_wait_sample_waits_ten_seconds_unless_told_otherwise(monkeypatch):
    slept = []
    monkeypatch.setattr(background, "sleep", slept.append)
    background.WaitTask().run()
    assert slept == [1] * 10


def test_the_progress_sample_comes_to_the_end_of_its_file(rest):
    size = background.LINES.stat().st_size
    found = run(rest, "lines")
    assert (found["status"], found["progress"], found["target"]) == ("succeeded", size, size)


@pytest.mark.django_db
def test_the_authorization_sample_lets_logged_in_users_in_alone(settings, client, django_user_model):
    settings.TASK_API_BACKGROUND_TASKS = [background.SumNumbers]
    settings.TASK_API_AUTHENTICATION_CLASSES = SESSION
    settings.TASK_API_PERMISSIONS_CLASSES = LOGGED_IN
    body = {"task": "sum", "inputs": {"numbers": [1]}}
    assert client.post("/tasks/", body, content_type="application/json").status_code == 403
    client.force_login(django_user_model.objects.create_user("ann"))
    assert client.post("/tasks/", body, content_type="application/json").status_code == 201
