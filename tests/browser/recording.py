"""The site of `tests/browser/site` and its page, which starts named runs and records each call of the client."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
from playwright.sync_api import Page, WebSocket

from tests.support.stack import Stack
from tests.support.waiting import wait_for


class Site(Stack):
    """The servers of the site."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": "tests.browser.site.settings"}

    def run(self, uuid: str) -> dict[str, Any]:
        """The run as REST shows it."""
        return httpx.get(f"{self.url}/tasks/{uuid}/").raise_for_status().json()

    def says_more(self, uuid: str) -> None:
        """Wait until the run has a new message."""
        said = self.run(uuid)["message_count"]
        wait_for(lambda: self.run(uuid)["message_count"] > said)

    def ended(self, uuid: str) -> dict[str, Any]:
        """The run as REST shows it, once it has ended."""
        return wait_for(lambda: (run := self.run(uuid))["finished"] and run)


class Recording:
    """An open page. Its tasks end when the test lets them, or with the test."""

    def __init__(self, page: Page, site: Site, url: str, directory: Path) -> None:
        self.page = page
        self.site = site
        self.url = url
        self.directory = directory
        self.gates: dict[str, Path] = {}  # by the runs' names
        self.errors: list[str] = []
        self.sockets: list[WebSocket] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("websocket", lambda socket: self.sockets.append(socket))  # noqa: PLW0108 - it cannot take a builtin

    def __enter__(self) -> Self:
        self.page.goto(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_end(*self.gates)
        assert self.errors == []

    def start(self, name: str = "run", task: str = "talk", **inputs: Any) -> str:
        """Start a task; the run's uuid, once the server has accepted it."""
        self.ask_for(name, task, **inputs)
        return self.uuid(name)

    def ask_for(self, name: str = "run", task: str = "talk", **inputs: Any) -> None:
        """Start a task, and do not wait."""
        self.page.evaluate("order => start(...order)", [name, task, inputs | {"gate": str(self.gate(name))}])

    def gate(self, name: str) -> Path:
        """The file that ends the run of that name; it is made after the test at the latest."""
        return self.gates.setdefault(name, self.directory / f"{name}.gate")

    def uuid(self, name: str = "run") -> str:
        return self.page.evaluate("name => handles[name].uuid", name)

    def let_end(self, *names: str) -> None:
        """Let the tasks of these runs end."""
        for name in names:
            self.gates[name].touch()

    def told(self, name: str = "run") -> dict[str, Any]:
        """The page's record of the run."""
        return self.page.evaluate("name => records[name]", name)

    def until(self, accept: Callable[[dict[str, Any]], bool], name: str = "run") -> dict[str, Any]:
        """The page's record of the run, once `accept` of it is true."""
        return wait_for(lambda: (told := self.told(name)) and accept(told) and told)

    def hears(self, more: int = 3, name: str = "run") -> None:
        """Wait until the page has received that many more messages."""
        known = len(self.told(name)["messages"])
        self.until(lambda told: len(told["messages"]) >= known + more, name)

    def catches_up(self, uuid: str, name: str = "run") -> None:
        """Wait until the page has received every message that the row has now."""
        said = self.site.run(uuid)["message_count"]
        self.until(lambda told: len(told["messages"]) >= said, name)

    def loses_its_socket(self) -> None:
        """Wait until the page's first WebSocket has closed."""
        self._until_sockets(lambda sockets: sockets[0].is_closed())

    def tries_again(self) -> None:
        """Wait until the page has opened two more WebSockets."""
        known = len(self.sockets)
        self._until_sockets(lambda sockets: len(sockets) >= known + 2)

    def _until_sockets(self, accept: Callable[[list[WebSocket]], bool]) -> None:
        """Let Playwright report WebSockets, which it does while it waits for an answer."""
        wait_for(lambda: self.page.evaluate("true") and accept(self.sockets))

    def check(self, uuid: str, outcome: str = "succeeded", name: str = "run") -> dict[str, Any]:
        """Wait for the run's end, check its record, and return the run as REST shows it."""
        told = self.until(lambda told: told["outcomes"], name)
        run = self.site.ended(uuid)
        assert told["ends"] == [outcome], "one callback tells the end"
        assert [end["name"] for end in told["outcomes"]] == [outcome]
        assert told["late"] == 0, "no callback is called after the end"
        assert told["messages"] == [[index, message] for index, message in enumerate(run["messages"])]
        assert told["outcomes"][0]["messages"] == run["messages"]
        assert told["outcomes"][0]["outputs"] == run["outputs"]
        assert told["progress"] == sorted(told["progress"])
        return run
