"""Two installations on one Redis, each with a database of its own: staging and production, or two projects."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import Databases
from tests.support.stack import Process, Stack
from tests.support.waiting import wait_for

only_sqlite = pytest.mark.parametrize("own_stack", ["sqlite"], indirect=True)
pytestmark = only_sqlite


@pytest.fixture
def staging(own_stack: Stack, databases: Databases) -> Callable[..., Process]:
    """Starts a worker of the other installation."""
    database = json.dumps(databases.new("sqlite"))

    def start(**extra: str) -> Process:
        own_stack.extra = {"TEST_DATABASE": database} | extra
        own_stack.manage("migrate", "--verbosity=0")
        own_stack.start_worker(name="staging")
        own_stack.extra = {}
        return own_stack.processes["staging"]

    return start


@pytest.fixture
def run(own_stack: Stack) -> Iterator[Callable[[], Callable[[], bool]]]:
    """Starts a run; gives whether it has succeeded, at its first attempt."""
    with own_stack.client() as rest:

        def start() -> Callable[[], bool]:
            location = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).headers["Location"]
            return lambda: (seen := rest.get(location).json())["status"] == "succeeded" and seen["attempt"] == 1

        yield start


def test_a_job_that_the_wrong_worker_took_comes_to_the_right_one(own_stack, staging, run):
    own_stack.stop("worker")
    wrong = staging()
    has_succeeded = run()
    warning = wrong.wait_for_output(r"WARNING .*: There is no run [0-9a-f-]+ in this worker's database\. (.*)")
    assert "set TASK_API_REDIS_PREFIX" in warning[1]
    assert "the run was deleted" in warning[1]
    own_stack.start_worker()
    wait_for(has_succeeded)
    own_stack.stop("staging")
    assert "it executed 0 runs" in wrong.output


def test_while_both_are_there_every_run_is_executed_by_its_own(own_stack, staging, run):
    wrong = staging()
    runs = [run() for _ in range(40)]
    wait_for(lambda: all(has_succeeded() for has_succeeded in runs))
    own_stack.stop("staging")
    own_stack.stop("worker")
    assert "it executed 0 runs" in wrong.output
    assert "it executed 40 runs" in own_stack.logs()["worker"]


def test_with_a_prefix_of_their_own_they_do_not_meet(own_stack, staging, run):
    other = staging(TEST_REDIS_PREFIX="mysite-staging")
    runs = [run() for _ in range(10)]
    wait_for(lambda: all(has_succeeded() for has_succeeded in runs))
    own_stack.stop("staging")
    assert "There is no run" not in other.output


def test_the_job_of_a_run_that_was_deleted_is_dropped(own_stack, run):
    worker = own_stack.processes["worker"]
    settings = "from taskapi.backends import get_backend; from uuid import uuid4; "
    own_stack.manage("shell", "--verbosity=0", "-c", settings + "get_backend().enqueue(uuid4(), queue='default')")
    worker.wait_for_output("There is no run")
    worker.wait_for_output("The job of run [0-9a-f-]+ is dropped")
    wait_for(run())
