"""The mistakes of day one, with real processes: each is told where its developer looks.

What a page's console and its errors say is in frontend/tests/mistakes.test.ts. What `check` says about settings is in
tests/unit/test_checks.py.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.databases import KINDS, Databases
from tests.support.socket import open_socket
from tests.support.stack import Process, Stack
from tests.support.waiting import wait_for

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.integration.mistaken"}
NO_WORKER = "No worker takes the queue 'default'"
START_ONE = "python manage.py taskworker --queue default"
SUM = {"task": "sum", "inputs": {"numbers": [1, 2]}}


class Site(Stack):
    """A project in development, of which nothing is started."""

    application = "tests.project.asgi:application"

    def _launch_web(self, name: str, port: int) -> Process:
        return self._start(name, "daphne", "--port", str(port), self.application)

    def check(self, *arguments: str) -> str:
        """What `manage.py check` prints; its exit code has to be 0."""
        command = [sys.executable, "-m", "django", "check", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout + done.stderr


@pytest.fixture
def site_on(databases: Databases, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Gives the site on a new database of that kind."""
    with ExitStack() as ending:

        def make(kind: str) -> Site:
            site = Site(databases.new(kind), tmp_path)
            site.extra = dict(SETTINGS)
            ending.callback(site.__exit__)
            site.valkey.start()
            return site

        yield make


@pytest.fixture
def site(site_on: Callable[[str], Site]) -> Site:
    return site_on("sqlite")


@pytest.fixture
def served(site: Site) -> Site:
    """A site with its tables and its server, and no worker."""
    site.manage("migrate", "--verbosity=0")
    site.start_web()
    return site


# No worker takes the queue


def test_a_run_that_no_worker_takes_says_so_over_rest_and_in_the_log(served):
    with served.client() as rest:
        started = rest.post("/tasks/", json=SUM)
        assert "hint" not in started.json(), "it has not waited yet"
        run = wait_for(lambda: run if "hint" in (run := rest.get(started.headers["Location"]).json()) else None)
        assert run["status"] == "pending"
        assert run["hint"] == {"code": "no_worker", "message": f"{NO_WORKER}. Start one: {START_ONE}"}
        served.processes["web"].wait_for_output(f"WARNING .*{NO_WORKER}.*{START_ONE}")
        served.start_worker()
        run = wait_for(lambda: run if (run := rest.get(started.headers["Location"]).json())["finished"] else None)
        assert (run["status"], "hint" in run) == ("succeeded", False)


async def test_a_run_that_is_followed_by_a_socket_alone_says_so_too(served):
    async with open_socket(served.ws_url) as socket:
        await socket.send(type="run", ref="1", **SUM)
        accepted = await socket.receive()
        assert "hint" not in accepted["task"]
        served.processes["web"].wait_for_output(f"WARNING .*{NO_WORKER}.*{START_ONE}")
        await socket.send(type="subscribe", ref="2", uuid=accepted["task"]["uuid"], after=0)
        (*_, snapshot) = await socket.receive_until("snapshot")
        assert snapshot["task"]["hint"]["message"] == f"{NO_WORKER}. Start one: {START_ONE}"


def test_before_a_deployment_the_queues_without_a_worker_are_named(site):
    told = f"(taskapi.W014) {NO_WORKER} now"
    before = site.check("--deploy")
    assert told in before
    assert f"Start one: {START_ONE}" in before
    site.manage("migrate", "--verbosity=0")
    site.start_worker()
    wait_for(lambda: told not in site.check("--deploy"))
    site.stop("worker")
    assert told in site.check("--deploy"), "a worker that ends takes back that it is there"
    assert "taskapi.W014" not in site.check(), "workers are asked for only before a deployment"


# Django's own asgi.py


async def test_djangos_own_asgi_serves_rest_and_refuses_each_socket(site):
    """So the script says, once the first handshake has failed and REST has answered, that there is no WebSocket."""
    site.application = "tests.integration.djangos_asgi:application"
    site.manage("migrate", "--verbosity=0")
    site.start_web()
    with pytest.raises(InvalidStatus):
        async with open_socket(site.ws_url):
            pass
    with site.client() as rest:
        assert rest.post("/tasks/", json=SUM).status_code == 201


# Redis is not there


def test_without_redis_the_logs_name_the_backend_that_needs_none(site):
    site.manage("migrate", "--verbosity=0")
    site.extra = SETTINGS | {"TEST_REDIS_URL": "redis://127.0.0.1:1/0"}  # nothing listens on port 1
    site.start_web()
    with site.client() as rest:
        assert rest.post("/tasks/", json=SUM).status_code == 201
    told = "Redis is not there .*Start it, or set TASK_API_REDIS_URL.*'taskapi.backends.local.LocalBackend'"
    site.processes["web"].wait_for_output(f"could not be queued yet.*{told}")
    site.start_worker()
    site.processes["worker"].wait_for_output(f"The queue is unavailable: {told}.*next try")
    assert "(taskapi.W014) Whether workers take the queues" in site.check("--deploy")


# `migrate` was forgotten


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_forgotten_migrate_is_told_over_rest_and_by_the_socket(site_on, kind):
    site = site_on(kind)
    site.start_web()
    with site.client() as rest:
        refused = rest.post("/tasks/", json=SUM)
    assert refused.status_code == 503
    assert "taskapi_taskinfo" in refused.json()["detail"]
    assert refused.json()["detail"].endswith("Run: python manage.py migrate")
    async with open_socket(site.ws_url) as socket:
        await socket.send(type="run", ref="1", **SUM)
        error = await socket.receive()
    assert (error["type"], error["code"]) == ("error", "unavailable")
    assert "taskapi_taskinfo" in error["detail"]
    assert error["detail"].endswith("Run: python manage.py migrate")
