"""The database, used from tasks of both kinds, with both databases."""

import httpx
import pytest

from tests.support.waiting import wait_for

both = pytest.mark.parametrize("task", ["add_user", "async_add_user"])


def start(rest: httpx.Client, task: str, **inputs: object) -> str:
    response = rest.post("/tasks/", json={"task": task, "inputs": inputs})
    assert response.status_code == 201, response.text
    return response.headers["Location"]


def ended(rest: httpx.Client, location: str) -> dict[str, object]:
    """The run once it has succeeded."""

    def look() -> dict[str, object] | None:
        run = rest.get(location).json()
        assert run["error"] is None
        return run if run["status"] == "succeeded" else None

    return wait_for(look)


@both
def test_what_one_run_writes_the_next_one_reads(rest, task):
    first = ended(rest, start(rest, task, name=f"first of {task}"))["outputs"]["users"]
    second = ended(rest, start(rest, task, name=f"second of {task}"))["outputs"]["users"]
    assert second == first + 1


@both
def test_many_runs_that_write_at_once_all_succeed(rest, task):
    before = ended(rest, start(rest, task, name=f"{task} before"))["outputs"]["users"]
    for location in [start(rest, task, name=f"{task} {n}") for n in range(30)]:
        ended(rest, location)
    after = ended(rest, start(rest, task, name=f"{task} after"))["outputs"]["users"]
    assert after == before + 31


def test_a_tasks_rollback_is_of_its_own_rows_and_not_of_what_it_said(rest):
    run = ended(rest, start(rest, "rollback", name="nobody"))
    assert run["outputs"] == {"users": 0}
    assert run["messages"] == ["added"]


def test_an_anonymous_run_has_no_user(rest):
    assert ended(rest, start(rest, "who_am_i"))["outputs"] == {"user": None}
