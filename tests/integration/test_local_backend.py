"""A server that executes its own runs (LocalBackend): runserver, daphne, and WSGI servers, each alone on its database.

Each is a real process. No test starts a worker or a Redis, and no server connects to anything.
"""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.contract.guarantees import check_stream, messages
from tests.support.processes import is_there
from tests.support.site import CONNECTS, Site
from tests.support.socket import open_socket
from tests.support.sse import client_of, open_stream
from tests.support.waiting import until, wait_for

pytestmark = pytest.mark.timeout(180)  # each test starts several processes, one after the other

EXECUTES = re.compile(r"Process (\d+) executes runs")
FIRST, SECOND = ["attempt 1", 0, 1, 2], ["attempt 2", 0, 1, 2]  # what the two attempts of `Steps` say


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site
        assert CONNECTS not in site.output(), "a server has connected to something"
        assert "redis" not in site.output().lower()
        assert "Traceback" not in site.output()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """`Steps` works until this file exists."""
    return tmp_path / "go on"


def start(site: Site, file: Path) -> str:
    """Start a run over REST; its uuid."""

    def ask() -> httpx.Response | None:
        try:
            with site.client() as client:
                return client.post("/tasks/", json={"task": "steps", "inputs": {"file": str(file)}})
        except httpx.TransportError:  # runserver does not say when it listens
            return None

    answer = wait_for(ask)
    assert answer.status_code == 201, answer.text
    uuid: str = answer.json()["uuid"]
    return uuid


def read(site: Site, uuid: str) -> dict[str, Any]:
    with site.client() as client:
        run: dict[str, Any] = client.get(f"/tasks/{uuid}/").json()
        return run


START = {"runserver": Site.start_runserver, "daphne": Site.start_daphne, "wsgi": Site.start_wsgi}


# Reloads


def test_a_run_that_a_reload_interrupts_is_handed_back_and_goes_on(site, file):
    process = site.start_runserver()
    uuid = start(site, file)
    site.until_row(uuid, status="running", message_count=len(FIRST))
    site.make_reload()
    site.until_row(uuid, status="running", attempt=2, handed_back=1, message_count=len(FIRST + SECOND))
    file.touch()
    site.until_row(uuid, status="succeeded")
    run = read(site, uuid)
    assert run["messages"] == FIRST + SECOND
    assert run["outputs"] == {"attempt": 2}
    first, second = dict.fromkeys(EXECUTES.findall(process.output))
    assert first != second, "the process that watches the files executes nothing"


# Stops and starts


@pytest.mark.parametrize(("server", "number"), [("daphne", signal.SIGTERM), ("wsgi", signal.SIGINT)])
def test_what_runs_when_the_server_ends_is_handed_back_and_goes_on(site, file, server, number):
    process = START[server](site)
    uuid = start(site, file)
    site.until_row(uuid, status="running", message_count=len(FIRST))
    assert process.stop(number) == 0
    row = site.row(uuid)
    assert (row["status"], row["handed_back"], row["worker"]) == ("pending", 1, "")
    START[server](site)
    file.touch()
    if server == "wsgi":  # it does not know that it serves before it is asked for something
        read(site, uuid)
    site.until_row(uuid, status="succeeded", attempt=2)


def test_the_run_of_a_server_that_was_killed_goes_on_when_its_lease_has_run_out(site, file):
    process = site.start_daphne()
    uuid = start(site, file)
    site.until_row(uuid, status="running", message_count=len(FIRST))
    process.popen.kill()
    process.popen.wait()
    site.start_daphne()
    file.touch()
    site.until_row(uuid, status="succeeded", attempt=2, lost=1)


@pytest.mark.parametrize("server", ["runserver", "daphne"])
def test_runs_that_nobody_looks_at_are_executed_once_the_server_is_there(site, file, server):
    """Nothing is asked of the server. One run has waited for it, and another is started elsewhere while it serves."""
    file.touch()
    code = f"print(Steps.start({{'file': {str(file)!r}}}).uuid)"
    (before,) = re.findall(r"^[0-9a-f-]{36}$", site.run_in_shell(code), re.MULTILINE)
    START[server](site)
    site.until_row(before, status="succeeded", attempt=1)
    (later,) = re.findall(r"^[0-9a-f-]{36}$", site.run_in_shell(code), re.MULTILINE)
    site.until_row(later, status="succeeded", attempt=1)


def test_commands_that_do_not_serve_execute_nothing(site, file):
    file.touch()
    said = site.run_in_shell(f"print(Steps.start({{'file': {str(file)!r}}}).uuid)")
    assert "waits in its row, because this process serves nothing" in said
    said += site.python("-m", "django", "migrate") + site.python("-m", "django", "check")
    said += site.run_in_shell("import threading; print([thread.name for thread in threading.enumerate()])")
    assert "'MainThread'" in said
    assert "taskapi-local" not in said
    assert not EXECUTES.search(said)
    assert site.row()["status"] == "pending"


def test_a_worker_says_that_it_is_not_needed(site):
    with pytest.raises(AssertionError, match="LocalBackend', which needs no worker"):
        site.python("-m", "django", "taskworker")


# Followed and cancelled


async def test_daphne_alone_tells_a_socket_what_happens(site, file):
    site.start_daphne()
    async with open_socket(site.ws_url()) as socket:
        await socket.send(type="run", ref="1", task="steps", inputs={"file": str(file)})
        frames = await socket.receive_until("message")
        while messages(frames) != FIRST:
            frames += await socket.receive_until("message")
        assert site.row()["status"] == "running"
        file.touch()
        frames += await socket.receive_until("finished")
    check_stream(frames)
    assert [frame["progress"] for frame in frames if frame["type"] == "progress"][-1] == 3
    assert frames[-1]["task"]["outputs"] == {"attempt": 1}


async def test_a_socket_that_connects_again_after_a_reload_is_told_of_both_attempts(site, file):
    process = site.start_runserver("daphne", serves="Listening on TCP address")
    async with open_socket(site.ws_url()) as socket:
        await socket.send(type="run", ref="1", task="steps", inputs={"file": str(file)})
        accepted = await socket.receive()
        await until(lambda: site.row()["message_count"] == len(FIRST))
    await asyncio.to_thread(site.make_reload)
    await until(lambda: site.row()["attempt"] == 2)
    await until(lambda: process.output.count("Listening on TCP address") == 2)
    async with open_socket(site.ws_url()) as socket:
        await socket.send(type="subscribe", ref="2", uuid=accepted["task"]["uuid"], after=0)
        file.touch()
        frames = await socket.receive_until("finished")
    assert frames[0]["task"]["messages"] + messages(frames) == FIRST + SECOND
    assert frames[-1]["task"]["outputs"] == {"attempt": 2}


def test_a_wsgi_server_alone_is_polled(site, file):
    site.start_wsgi()
    uuid = start(site, file)
    wait_for(lambda: read(site, uuid)["messages"] == FIRST)
    with site.client() as client:
        assert client.post(f"/tasks/{uuid}/cancel/").status_code == 202
    wait_for(lambda: read(site, uuid)["status"] == "cancelled")


@pytest.mark.parametrize("server", START)
async def test_each_server_streams_a_run_as_it_happens_and_waits_for_it(site, file, server):
    START[server](site)
    uuid = await asyncio.to_thread(start, site, file)
    url = f"http://127.0.0.1:{site.ports['web']}"
    async with open_stream(url, uuid) as stream:
        while not stream.frames or stream.frames[0]["task"]["messages"] + messages(stream.frames) != FIRST:
            assert await stream.receive()
        assert site.row()["status"] == "running"
        file.touch()
        frames = await stream.to_the_end()
    assert frames[-1]["status"] == "succeeded"
    file.unlink()
    uuid = await asyncio.to_thread(start, site, file)
    await until(lambda: site.row(uuid)["message_count"] == len(FIRST))
    async with client_of(url) as client:
        waiting = asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"}))
        file.touch()
        answer = await waiting
    assert (answer.json()["status"], answer.headers["Preference-Applied"]) == ("succeeded", "wait=60")


def test_a_database_that_cannot_be_opened_is_told_and_come_back_to(site, file):
    """The file of an SQLite database is on a volume that is gone for a while."""
    site.start_daphne()
    uuid = start(site, file)
    site.until_row(uuid, status="running", message_count=len(FIRST))
    database, aside = Path(site.database), Path(f"{site.database}.aside")
    database.rename(aside)
    database.mkdir()  # so that no empty database is made in its place
    calls = [("GET", f"/tasks/{uuid}/events/"), ("POST", "/tasks/"), ("POST", f"/tasks/{uuid}/cancel/")]
    with site.client() as client:
        for method, path in calls:
            answer = client.request(method, path, json={"task": "steps", "inputs": {"file": "x"}})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
            assert int(answer.headers["Retry-After"]) > 0
        answer = client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=20"})
        assert answer.status_code == 503
    database.rmdir()
    aside.rename(database)
    file.touch()
    wait_for(lambda: read(site, uuid).get("status") == "succeeded")
    site.processes["web"].popen.kill()  # its log has tracebacks, as it should
    site.logs.clear()


async def test_a_run_in_a_process_of_its_own_is_ended_when_it_is_cancelled(site, tmp_path):
    site.start_daphne()
    pids = tmp_path / "pids"
    async with open_socket(site.ws_url()) as socket:
        await socket.send(type="run", ref="1", task="stuck", inputs={"pid_file": str(pids)})
        accepted = await socket.receive()
        await until(pids.exists)
        await socket.send(type="cancel", ref="2", uuid=accepted["task"]["uuid"])
        frames = await socket.receive_until("finished")
    assert frames[-1]["status"] == "cancelled"
    for pid in map(int, pids.read_text().split()):
        await until(lambda pid=pid: not is_there(pid))


# Several processes


async def test_two_servers_execute_each_run_once_and_tell_of_one_another(site, file):
    """A follower in the other process sees changes when the rows are looked at; a cancel there reaches the lease."""
    site.start_daphne("web")
    site.start_daphne("other")
    uuid = start(site, file)
    await until(lambda: site.row(uuid)["message_count"] == len(FIRST))
    async with open_socket(site.ws_url("other")) as socket:
        await socket.send(type="subscribe", ref="1", uuid=uuid, after=0)
        snapshot = await socket.receive()
        file.touch()
        frames = await socket.receive_until("finished")
        assert snapshot["task"]["messages"] + messages(frames) == FIRST
        assert frames[-1]["task"]["attempt"] == 1

        file.unlink()
        uuid = start(site, file)
        await until(lambda: site.row(uuid)["message_count"] == len(FIRST))
        await socket.send(type="cancel", ref="2", uuid=uuid)
        await until(lambda: site.row(uuid)["status"] == "cancelled")
    assert len(set(EXECUTES.findall(site.output()))) == 2
    assert "One server process is enough for this backend" in site.output()


def test_a_server_that_forks_executes_runs_in_the_children_alone(site, file):
    master = site.start_wsgi("forking")
    uuid = start(site, file)
    site.until_row(uuid, status="running", message_count=len(FIRST))
    assert str(master.popen.pid) not in EXECUTES.findall(master.output)
    assert master.stop() == 0
    assert site.row(uuid)["status"] == "pending", "the child has handed it back"
