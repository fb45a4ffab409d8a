"""Files between real servers: up, through a worker, and down again."""

import asyncio
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.databases import Databases
from tests.support.gate import Gate
from tests.support.socket import Socket
from tests.support.stack import Stack
from tests.support.waiting import wait_for

LARGE = 200 * 2**20  # bytes
ALLOWED = 40 * 2**20  # bytes by which a process may grow: buffers, and what the allocator keeps
LEASE_LIMIT = 40.0  # seconds in which a killed worker is noticed, and its run is executed again


def upload(client: httpx.Client, content: Any, name: str = "data.bin") -> dict[str, Any]:
    answer = client.post("/tasks/uploads/", files={"file": (name, content, "application/x-data")}, timeout=120)
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(client: httpx.Client, uuid: str, limit: float = 60.0) -> dict[str, Any]:
    def look() -> Any:
        run = client.get(f"/tasks/{uuid}/").json()
        return run["finished"] and run

    return wait_for(look, limit)


def in_storage(stack: Stack) -> list[Path]:
    return [path for path in (stack.directory / "media").rglob("*") if path.is_file()]


@pytest.mark.parametrize("task", ["digest", "async_digest", "alone_digest"])
def test_a_worker_reads_what_was_uploaded(task: str, rest: httpx.Client) -> None:
    contents = [b"first", os.urandom(3_000_000)]
    uploads = [upload(rest, content, f"{n}.bin") for n, content in enumerate(contents)]
    started = rest.post("/tasks/", json={"task": task, "inputs": {"files": uploads}})
    expected = [
        {"name": f"{n}.bin", "size": len(content), "digest": hashlib.sha256(content).hexdigest()}
        for n, content in enumerate(contents)
    ]
    assert ended(rest, started.json()["uuid"])["outputs"] == {"found": expected}


@pytest.mark.parametrize("task", ["give_back", "async_give_back", "alone_give_back"])
async def test_what_a_run_returns_is_in_the_events_with_its_link(
    task: str, rest: httpx.Client, ws_connect: Callable[..., AbstractAsyncContextManager[Socket]], stack: Stack
) -> None:
    given = upload(rest, b"a,b\n1,2\n", "data.csv")
    async with ws_connect() as ws:
        await ws.send(type="run", ref="r", task=task, inputs={"file": {"upload": given["upload"]}})
        finished = (await ws.receive_until("finished"))[-1]["task"]
    copy = finished["outputs"]["copy"]
    assert copy | {"url": ""} == {"name": "data.csv", "size": 8, "content_type": "application/x-data", "url": ""}
    await asyncio.to_thread(assert_it_can_be_fetched, rest, finished)


def assert_it_can_be_fetched(rest: httpx.Client, run: dict[str, Any]) -> None:
    copy = run["outputs"]["copy"]
    assert rest.get(f"/tasks/{run['uuid']}/").json()["outputs"]["copy"] == copy
    fetched = rest.get(copy["url"])
    assert (fetched.status_code, fetched.content) == (200, b"a,b\n1,2\n")
    assert fetched.headers["content-disposition"] == 'attachment; filename="data.csv"'
    rest.head(copy["url"]).raise_for_status()


def test_a_start_in_parts_reaches_the_worker(rest: httpx.Client) -> None:
    parts = [("inputs.files", ("a.bin", b"a")), ("inputs.files", ("b.bin", b"b"))]
    started = rest.post("/tasks/", data={"task": "digest"}, files=parts)
    found = ended(rest, started.json()["uuid"])["outputs"]["found"]
    assert [(one["name"], one["size"]) for one in found] == [("a.bin", 1), ("b.bin", 1)]


def test_an_upload_that_is_cut_off_leaves_nothing(stack: Stack, rest: httpx.Client) -> None:
    before = len(in_storage(stack))
    head = (
        "POST /tasks/uploads/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(head.encode() + b"x" * 500_000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, as of a lost line
    upload(rest, b"the next one")
    assert len(in_storage(stack)) == before + 1


# A run goes while another begins to use its file. 40 times, in the order that the database makes of it.
RACE = """
import threading
from django.core.files.base import ContentFile
from django.db import connections
from taskapi.exceptions import InvalidInputs
from taskapi.files import clear, store_upload
from taskapi.models import StoredFile, TaskInfo
from taskapi.storage import get_storage
from tests.project.filed import Digest

def start(given):
    try:
        started.append(Digest.start({"files": [given]}, delay=3600))
    except InvalidInputs:
        pass

def at_once(*functions):
    barrier = threading.Barrier(len(functions))
    def call(function):
        barrier.wait()
        try:
            function()
        finally:
            connections.close_all()
    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

kept = 0
for _ in range(40):
    started = []
    row = store_upload(ContentFile(b"x", "x"), None)
    given = {"upload": row.reference}
    first = Digest.start({"files": [given]}, delay=3600)
    at_once(first.delete, lambda: start(given), lambda: start(given))
    clear()
    found = StoredFile.objects.filter(pk=row.pk).first()
    if started:
        assert found is not None and found.is_ready and found.due is None, vars(found or row)
    assert (found is not None) == bool(started) == get_storage().exists(row.location)
    kept += bool(started)
    TaskInfo.objects.filter(pk__in=[info.pk for info in started]).delete()
    assert not get_storage().exists(row.location)
print("kept", kept)
"""


def test_a_file_whose_run_goes_is_there_for_the_run_that_has_begun_to_use_it(stack: Stack) -> None:
    assert "kept" in stack.manage("shell", "--verbosity=0", "-c", RACE)


# Memory


@pytest.fixture(scope="module")
def sqlite_stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(databases.new("sqlite"), tmp_path_factory.mktemp("files")) as stack:
        yield stack


class Growth:
    """By how much processes of a stack grow while the block runs, in bytes."""

    def __init__(self, stack: Stack) -> None:
        self._processes = {name: psutil.Process(one.popen.pid) for name, one in stack.processes.items()}
        self._before = {name: self._size(process) for name, process in self._processes.items()}
        self.most = dict.fromkeys(self._processes, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _size(self, process: psutil.Process) -> int:
        return process.memory_info().rss

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            for name, process in self._processes.items():
                self.most[name] = max(self.most[name], self._size(process) - self._before[name])

    def __enter__(self) -> "Growth":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        print({name: f"{size / 2**20:.1f} MiB" for name, size in self.most.items()})  # noqa: T201


@pytest.mark.timeout(180)
def test_200_mb_go_up_and_down_in_bounded_memory(sqlite_stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for _ in range(LARGE // 2**20):
            file.write(os.urandom(2**20))
    with sqlite_stack.client() as client:
        run_once(client, b"small")  # what is loaded at the first time is no growth
        with Growth(sqlite_stack) as growth:
            with path.open("rb") as file:
                given = upload(client, file, "large.bin")
            uuid = client.post("/tasks/", json={"task": "give_back", "inputs": {"file": given}}).json()["uuid"]
            copy = ended(client, uuid)["outputs"]["copy"]
            fetched = hashlib.sha256()
            with httpx.stream("GET", f"{sqlite_stack.url}{copy['url']}", timeout=60) as answer:
                for chunk in answer.iter_bytes():
                    fetched.update(chunk)
    assert given["size"] == copy["size"] == LARGE
    with path.open("rb") as file:
        assert fetched.hexdigest() == hashlib.file_digest(file, "sha256").hexdigest()
    assert max(growth.most.values()) < ALLOWED, growth.most


def run_once(client: httpx.Client, content: bytes) -> None:
    given = upload(client, content)
    uuid = client.post("/tasks/", json={"task": "give_back", "inputs": {"file": given}}).json()["uuid"]
    client.get(ended(client, uuid)["outputs"]["copy"]["url"]).raise_for_status()


def test_a_client_that_does_not_read_its_file_costs_bounded_memory(sqlite_stack: Stack) -> None:
    with sqlite_stack.client() as client:
        run_once(client, b"small")
        uuid = client.post("/tasks/", json={"task": "make", "inputs": {"size": LARGE // 2}}).json()["uuid"]
        url = ended(client, uuid)["outputs"]["file"]["url"]
        with Growth(sqlite_stack) as growth, socket.create_connection(("127.0.0.1", sqlite_stack.port)) as slow:
            slow.sendall(f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 200")
            for _ in range(40):  # meanwhile others are served, for long enough to read all of the file
                assert client.post("/tasks/", json={"task": "count", "inputs": {"n": 1}}).status_code == 201
            received = 1000
            while chunk := slow.recv(2**20):
                received += len(chunk)
    assert received > LARGE // 2
    assert max(growth.most.values()) < ALLOWED, growth.most


# Workers that are killed


@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", ["aside_gated", "aside_alone_gated"])
def test_a_worker_that_is_killed_while_it_stores_a_file_leaves_none(task: str, sqlite_stack: Stack, gate: Gate) -> None:
    before = set(in_storage(sqlite_stack))
    sqlite_stack.start_worker("--queue", "aside", name="doomed")
    with sqlite_stack.client() as client:
        uuid = client.post("/tasks/", json={"task": task, "inputs": {"gate": gate.path}}).json()["uuid"]
        wait_for(lambda: set(in_storage(sqlite_stack)) - before)
        sqlite_stack.stop("doomed", signal.SIGKILL)
        sqlite_stack.start_worker("--queue", "aside", name="next")
        try:
            run = ended(client, uuid, LEASE_LIMIT)
            assert (run["status"], run["attempt"]) == ("succeeded", 2), run
            assert client.get(run["outputs"]["file"]["url"]).content == b"whole"
            (kept,) = wait_for(lambda: _only_one(set(in_storage(sqlite_stack)) - before))
            assert kept.read_bytes() == b"whole"
        finally:
            sqlite_stack.stop("next")


def _only_one(paths: set[Path]) -> set[Path] | None:
    return paths if len(paths) == 1 else None


@pytest.mark.parametrize("task", ["aside_gated", "aside_alone_gated"])
def test_a_run_that_is_cancelled_while_it_stores_a_file_leaves_none(task: str, sqlite_stack: Stack, gate: Gate) -> None:
    before = set(in_storage(sqlite_stack))
    sqlite_stack.start_worker("--queue", "aside", name="cancelled")
    try:
        with sqlite_stack.client() as client:
            uuid = client.post("/tasks/", json={"task": task, "inputs": {"gate": gate.path}}).json()["uuid"]
            wait_for(lambda: set(in_storage(sqlite_stack)) - before)
            client.post(f"/tasks/{uuid}/cancel/")
            if task == "aside_gated":  # a thread cannot be stopped: it stores the file, and the run has succeeded
                gate.open()
            run = ended(client, uuid)
            if run["status"] == "cancelled":
                wait_for(lambda: set(in_storage(sqlite_stack)) == before or None)
            else:
                assert client.get(run["outputs"]["file"]["url"]).content == b"partrest"
            assert task == "aside_gated" or run["status"] == "cancelled"
    finally:
        sqlite_stack.stop("cancelled")
