"""Servers and workers of two versions, side by side, while a new one is deployed: in any order."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.databases import Databases
from tests.support.stack import Stack
from tests.support.waiting import wait_for


class Deploy:
    """A stack whose processes are of the version of the test's choice."""

    def __init__(self, stack: Stack, start: Callable[..., str], seen: Callable[..., Any]) -> None:
        self.stack, self.start, self.seen = stack, start, seen

    def worker(self, version: str) -> None:
        self.stack.extra = {"DJANGO_SETTINGS_MODULE": "tests.integration.versions", "TEST_VERSION": version}
        self.stack.start_worker(name=version)

    def ended(self, location: str, **expected: Any) -> None:
        run = wait_for(lambda: run if (run := self.seen(location))["finished"] else None)
        assert (run["status"], run["error"], run["outputs"]) == ("succeeded", None, expected)

    def is_left(self, version: str, location: str) -> None:
        uuid = location.strip("/").rpartition("/")[2]
        self.stack.processes[version].wait_for_output(f"Run {uuid} is left to workers of another version")
        assert self.seen(location)["finished"] is None


@pytest.fixture
def deploy(databases: Databases, tmp_path: Any) -> Iterator[Callable[[str], Deploy]]:
    """Gives the deploy whose server is of that version."""
    stack, clients = Stack(databases.new("sqlite"), tmp_path), ExitStack()

    def begin(version: str) -> Deploy:
        stack.extra = {"DJANGO_SETTINGS_MODULE": "tests.integration.versions", "TEST_VERSION": version}
        stack.valkey.start()
        stack.manage("migrate", "--verbosity=0")
        stack.start_web()
        rest = clients.enter_context(stack.client())

        def start(**inputs: Any) -> str:
            response = rest.post("/tasks/", json={"task": "versioned", "inputs": inputs})
            assert response.status_code == 201, response.text
            return response.headers["Location"]

        return Deploy(stack, start, lambda location: rest.get(location).json())

    with clients:
        yield begin
    stack.__exit__()


def test_the_server_first_with_an_optional_input(deploy):
    """Old workers execute what does not use it, and leave the rest."""
    deploy = deploy("Optional")
    deploy.worker("First")
    for _ in range(5):
        deploy.ended(deploy.start(a=1), by="First", given={"a": 1})
    using = [deploy.start(a=1, b=n) for n in range(5)]
    deploy.is_left("First", using[-1])
    deploy.worker("Optional")
    for n, location in enumerate(using):
        deploy.ended(location, by="Optional", given={"a": 1, "b": n})
        assert deploy.seen(location)["attempt"] == 1
    for n in range(10):  # either may take it first
        deploy.ended(deploy.start(a=2, b=n), by="Optional", given={"a": 2, "b": n})


def test_the_workers_first_with_an_optional_input(deploy):
    deploy = deploy("First")
    deploy.worker("Optional")
    deploy.ended(deploy.start(a=1), by="Optional", given={"a": 1, "b": 5})


def test_the_workers_first_with_an_input_that_is_needed(deploy):
    deploy = deploy("First")
    deploy.worker("Required")
    without = deploy.start(a=1)
    deploy.is_left("Required", without)
    deploy.worker("First")
    deploy.ended(without, by="First", given={"a": 1})
    for _ in range(10):
        deploy.ended(deploy.start(a=2), by="First", given={"a": 2})


def test_the_server_first_with_values_that_old_workers_do_not_take(deploy):
    """That is found when the run has begun; it does not count as an attempt."""
    deploy = deploy("Wider")
    deploy.worker("First")
    wider = deploy.start(a="x")
    deploy.is_left("First", wider)
    deploy.ended(deploy.start(a="3"), by="First", given={"a": 3})
    deploy.worker("Wider")
    deploy.ended(wider, by="Wider", given={"a": "x"})
    for _ in range(10):
        deploy.ended(deploy.start(a="y"), by="Wider", given={"a": "y"})
