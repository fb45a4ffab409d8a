"""Pages without a script of their own follow runs, with the real htmx 4 and htmx 2."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import LIMIT
from tests.browser.proxy import BAD_GATEWAY, Proxy
from tests.browser.recording import Site
from tests.support.databases import Databases
from tests.support.gate import Gate
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

VERSIONS = (4, 2)  # of htmx

# A promise that is settled once the page has made no request for two of the longest waits before a reconnection.
QUIET = 4_000  # milliseconds


class HTMXSite(Site):
    """The servers of the pages with htmx."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": "tests.browser.site.htmx_settings"}

    def start(self, task: str, **inputs: Any) -> str:
        """Start a run; its uuid."""
        order = {"task": task, "inputs": inputs}
        return httpx.post(f"{self.url}/tasks/", json=order).raise_for_status().json()["uuid"]


class Followed:
    """A page on which htmx follows a run."""

    def __init__(self, page: Page, version: int) -> None:
        self.page = page
        self.version = version
        self.problems: list[str] = []  # in the console
        page.set_default_timeout(LIMIT)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def open(self, url: str, uuid: str, style: str = "") -> "Followed":
        self.page.goto(f"{url.rstrip('/')}/{self.version}/runs/{uuid}/{style}")
        return self

    @property
    def bar(self) -> Locator:
        return self.page.get_by_role("progressbar")

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def messages(self) -> Locator:
        return self.page.get_by_role("listitem")

    def shows(self, status: str | re.Pattern[str]) -> None:
        expect(self.status).to_have_text(status)

    def says(self, *messages: str) -> None:
        """These messages, in this order, each once."""
        expect(self.messages).to_have_text(list(messages))


@pytest.fixture(scope="module")
def site(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HTMXSite]:
    with HTMXSite(databases.new("sqlite"), tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(params=VERSIONS, ids=lambda version: f"htmx{version}")
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Followed]:
    page = chromium.new_page()
    yield Followed(page, request.param)
    page.close()


@pytest.fixture
def gates(tmp_path: Path) -> list[Gate]:
    return [Gate(tmp_path / f"gate{number}") for number in range(4)]


def paths(gates: list[Gate]) -> list[str]:
    return [gate.path for gate in gates]


def value_of(bar: Locator) -> list[float | None]:
    """The value and the maximum as assistive technology is told them; no value: not known."""
    return bar.evaluate("bar => [bar.position < 0 ? null : bar.value, bar.max]")


def requests_of(proxy: Proxy) -> int:
    return sum("/events/" in line for line in proxy.requests)


def test_a_run_is_followed_from_start_to_finish(page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"], result={"rows": 3})
    page.open(proxy.url, uuid)
    page.shows("Running")
    page.says("hello")
    for number, gate in enumerate(gates[:3], 1):
        gate.open()
        expect(page.page.get_by_text(f"{number} of 4")).to_be_visible()
        assert value_of(page.bar) == [number, 4]
    page.shows("Running: three quarters are done")
    gates[3].open()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")
    expect(page.page.get_by_role("definition")).to_have_text('{"rows": 3}')
    assert value_of(page.bar) == [4, 4]
    page.page.wait_for_timeout(QUIET)
    assert requests_of(proxy) == 1, "the connection is closed for good"
    assert page.problems == []
