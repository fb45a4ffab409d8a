"""Waiting, streams and polls in a project with much middleware and ATOMIC_REQUESTS, on PostgreSQL."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack

import httpx
import psycopg
import pytest

from tests.integration.heavy import NAME
from tests.integration.test_slow_readers import RECORD
from tests.support.sse import client_of, open_stream, stream_of
from tests.support.stack import WEB_SERVES, free_port
from tests.support.waiting import LIMIT, until, wait_for

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("stack", ["postgres"], indirect=True),
]

LOGIN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
user, _ = User.objects.get_or_create(username="heavy-%s")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""
LATE = 100.0  # seconds
ACTIVITY = "FROM pg_stat_activity WHERE application_name = %s"


class Web:
    """Another web server on the stack, with those settings."""

    def __init__(self, stack):
        self.stack = stack
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self):
        """Start it if it does not run."""
        if NAME not in self.stack.processes:
            self.stack.extra = {"DJANGO_SETTINGS_MODULE": "tests.integration.heavy"}
            command = ["--port", str(self.port), "tests.integration.heavy_asgi:application"]
            self.process = self.stack._start(NAME, "daphne", *command)
            self.stack.extra = {}
            self.process.wait_for_output(WEB_SERVES)

    def client(self, **options):
        return httpx.Client(base_url=self.url, timeout=LIMIT, **options)

    def start(self, task, **inputs):
        with self.client() as client:
            answer = client.post("/tasks/", json={"task": task, "inputs": inputs})
        assert answer.status_code == 201, answer.text
        return answer.json()["uuid"]

    def ask_postgres(self, query):
        database = self.stack.database
        with psycopg.connect(host=database["HOST"], user=database["USER"], dbname=database["NAME"]) as connection:
            return connection.execute(f"SELECT {query} {ACTIVITY}", [NAME]).fetchall()


@pytest.fixture(scope="module")
def heavy(stack):
    heavy = Web(stack)
    yield heavy
    if NAME in stack.processes:
        stack.stop(NAME)


@pytest.fixture
def web(heavy):
    heavy.run()
    return heavy


async def test_middleware_and_transactions_change_nothing(stack, web, gate):
    uuid = web.start("hold", gate=gate.path)
    with web.client(headers={"Accept-Encoding": "gzip"}) as client:
        wait_for(lambda: client.get(f"/tasks/{uuid}/").json()["message_count"])
        whole = client.get(f"/tasks/{uuid}/")
        assert whole.headers["Content-Encoding"] == "gzip"
        tag = whole.headers["ETag"]
        assert client.get(f"/tasks/{uuid}/", headers={"If-None-Match": tag}).status_code == 304
    async with client_of(web.url) as client, open_stream(web.url, uuid, headers={"Accept-Encoding": "gzip"}) as stream:
        known = {"If-None-Match": tag}
        waits = [
            asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"} | headers))
            for headers in (known, {}, known, {})
        ]
        await stream.until("snapshot")
        stays = [None]

        def settled():
            """Whether all of them wait, and hold no transaction."""
            stays[:] = [state for (state,) in web.ask_postgres("state")]
            return not any("transaction" in (state or "") or state == "active" for state in stays)

        await until(settled)
        assert not any(wait.done() for wait in waits)
        await asyncio.to_thread(gate.open)
        answers = await asyncio.gather(*waits)
        await stream.to_the_end()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.headers["X-User"] == "AnonymousUser" for answer in answers)
    assert [answer.json()["status"] for answer in answers[1::2]] == ["succeeded"] * 2
    assert stream.frames[0]["task"]["messages"] + [f["message"] for f in stream.frames if f["type"] == "message"] == [
        "held",
        "let go",
    ]
    await until(lambda: len(web.ask_postgres("pid")) <= 8)  # those of the road, and of the sockets' thread


def test_a_start_that_waits_is_committed_before_it_waits(web):
    """With ATOMIC_REQUESTS, no worker would see the run before the end of the request's transaction."""
    with web.client() as client:
        for body in ({"inputs": {"numbers": [1, 2]}}, {"many": [{"numbers": [3]}, {"numbers": [4]}]}):
            answer = client.post("/tasks/", json={"task": "sum"} | body, headers={"Prefer": "wait=60"}, timeout=LATE)
            assert (answer.status_code, answer.headers["Preference-Applied"]) == (201, "wait=60")
            found = answer.json()
            assert {run["status"] for run in (found if isinstance(found, list) else [found])} == {"succeeded"}


async def test_after_a_restart_of_the_database_the_first_poll_is_answered(stack, web, gate):
    """Middleware that uses the database finds the dead connection first, outside of any view."""
    uuid = web.start("hold", gate=gate.path)
    key = stack.manage("shell", "--verbosity=0", "-c", LOGIN % web.port).split()[-1]
    async with client_of(web.url) as client, open_stream(web.url, uuid) as stream:
        client.cookies.set("sessionid", key)
        await stream.until("snapshot")
        waits = asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"}))
        for _ in range(3):
            answers = await asyncio.gather(*(client.get(f"/tasks/{uuid}/") for _ in range(12)))
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.headers["X-User"] for answer in answers} == {f"heavy-{web.port}"}
            web.ask_postgres("pg_terminate_backend(pid)")
        answers = await asyncio.gather(*(client.get(f"/tasks/{uuid}/") for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200}
        assert not waits.done()
        await asyncio.to_thread(gate.open)
        assert (await waits).json()["status"] == "succeeded"
        assert (await stream.to_the_end())[-1]["status"] == "succeeded"


def drain(connection):
    while connection.recv(2**20):
        pass


async def test_a_client_that_reads_nothing_is_given_up(stack, web):
    uuid = stack.manage("shell", "--verbosity=0", "-c", RECORD).split()[-1]
    with socket.create_connection(("127.0.0.1", web.port)) as connection:
        connection.sendall(f"GET /tasks/{uuid}/events/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        warning = f"The client of a stream of run {uuid} read nothing for 2 s. Its connection is closed"
        await until(lambda: warning in web.process.output, LATE)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.settimeout(LIMIT)
        with pytest.raises(ConnectionError):  # it is cut off, and does not end as if all was said
            drain(connection)
    with web.client() as client:
        assert client.get(f"/tasks/{uuid}/", params={"after": 200}).status_code == 200


async def test_a_server_that_is_told_to_end_does_so_whoever_waits(stack, web, gate):
    uuid = web.start("hold", gate=gate.path)
    async with client_of(web.url) as client, AsyncExitStack() as open_streams:
        waits = [asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"})) for _ in range(20)]
        streams = [await open_streams.enter_async_context(stream_of(client, uuid)) for _ in range(20)]
        await asyncio.gather(*(stream.until("snapshot") for stream in streams))
        process, said = web.process, len(web.process.output)
        assert await asyncio.to_thread(stack.stop, NAME, signal.SIGTERM) == 0
        answers = await asyncio.gather(*waits, *(stream.receive() for stream in streams), return_exceptions=True)
    gate.open()
    assert all(isinstance(answer, httpx.TransportError) or answer is None for answer in answers), answers
    for fault in ("Traceback", "was destroyed", "never awaited", "never retrieved"):
        assert fault not in process.output[said:]
