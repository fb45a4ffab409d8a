"""Bodies of requests reach the views of a project as Django promises, however its application is made."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.support.stack import WEB_SERVES, Process, free_port
from tests.support.waiting import wait_for

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
HEAD = b"POST /body/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n"
SIZES = [0, 1, 8_192, 99_999, 100_000, 300_000, 900_000]  # daphne reads 8,192 at once; from 100,000 it has a file


@pytest.fixture(scope="module", params=["bare", "wrapped", "nested", "routed"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, folder = free_port(), tmp_path_factory.mktemp("bodies")
    command = [sys.executable, "-m", "daphne", "--port", str(port), f"tests.integration.bodies_asgi:{request.param}"]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.integration.bodies_settings"}
    server = Process("web", command, environment, folder / "web.log", Path.cwd())
    try:
        server.wait_for_output(WEB_SERVES)
        yield port
        assert "Exception inside application" not in server.output
    finally:
        server.stop()


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


def of(content: bytes) -> dict[str, object]:
    return {"size": len(content), "digest": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("path", ["/body/", "/stream/"])
@pytest.mark.parametrize("size", SIZES)
def test_a_view_reads_each_byte_of_a_body(size: int, path: str, client: httpx.Client) -> None:
    content = os.urandom(size)
    assert client.post(path, content=content).json() == of(content)
    in_chunks = (content[first : first + 7_000] for first in range(0, size, 7_000))
    assert client.post(path, content=in_chunks).json() == of(content)  # it has no Content-Length


def test_a_view_reads_a_large_form(client: httpx.Client) -> None:
    fields = {"a": "x" * 200_000, "b": "ü" * 50_000}
    form = client.post("/form/", content=urlencode(fields), headers=FORM)
    in_parts = client.post("/form/", data=fields, files={"file": ("x", b"")})
    assert form.json() == in_parts.json() == of(json.dumps(fields).encode())


def test_a_view_reads_large_files(client: httpx.Client) -> None:
    contents = [os.urandom(3_000_000), os.urandom(10)]
    sent = [("file", (str(n), content)) for n, content in enumerate(contents)]
    assert client.post("/files/", files=sent).json() == of(b"".join(contents))


def test_the_projects_bound_of_bodies_holds(client: httpx.Client) -> None:
    assert client.post("/body/", content=b"x" * 1_000_001).status_code == 400
    assert client.post("/form/", data={"a": "x" * 1_000_001}).status_code == 400
    assert client.post("/tasks/", content=b"x" * 1_000_001, headers=JSON).status_code == 413


def test_a_connection_serves_one_request_after_another(port: int) -> None:
    """Also those that are sent before the first answer, and a body that no view has read."""
    contents = [os.urandom(size) for size in (150_000, 10, 150_000)]
    paths = ["/unread/", "/body/", "/body/"]
    head = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
    heads = [head.format(path, len(content)).encode() for path, content in zip(paths, contents, strict=True)]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"".join(first + content for first, content in zip(heads, contents, strict=True)))
        answered = b""
        while answered.count(b"digest") < 3:
            answered += connection.recv(2**16)
    expected = [of(b""), of(contents[1]), of(contents[2])]
    assert [json.dumps(one).encode() in answered for one in expected] == [True] * 3


def test_a_body_that_is_shorter_than_it_says_reaches_no_view(port: int, client: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST /body/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n" + b"x" * 200_000
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1_000) == b""
    assert client.post("/body/", content=b"after").json() == of(b"after")


def test_no_file_stays_open(port: int, client: httpx.Client) -> None:
    client.post("/unread/", content=b"x" * 500_000)
    client.post("/files/", files={"file": ("x", b"x" * 500_000)})
    client.post("/tasks/uploads/", content=b"x" * 500_000, headers={"Content-Type": "text/plain"})
    client.post("/nowhere/", content=b"x" * 500_000)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(HEAD + b"x" * 200_000)  # and it goes away in the middle
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(HEAD + b"x" * 300_000)  # and it goes away before the answer
    wait_for(lambda: client.get("/still-open/").json()["files"] == [] or None)
