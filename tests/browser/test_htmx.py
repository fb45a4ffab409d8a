"""Pages without a script of their own follow runs, with the real htmx 4 and htmx 2."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from taskapi.views.html import CANNOT_SHOW
from tests.browser.conftest import LIMIT
from tests.browser.proxy import BAD_GATEWAY, Proxy
from tests.browser.recording import Site
from tests.support.databases import Databases
from tests.support.gate import Gate
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

VERSIONS = (4, 2)  # of htmx

QUIET = 3_000  # milliseconds without a request; one that connects again does it after 500, or 3000 for an EventSource
SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
MARK = "item => { item.dataset.mark = 'seen before' }"


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


def streams(proxy: Proxy) -> int:
    return sum("/events/" in line for line in proxy.requests)


def test_a_run_is_followed_from_start_to_finish(
    page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]
) -> None:
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
    assert streams(proxy) == 1, "the connection is closed for good"
    assert page.problems == []


def test_a_page_that_is_loaded_in_mid_run_or_after_it_shows_all(
    page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]
) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"], result=7)
    page.open(proxy.url, uuid)
    gates[0].open()
    page.says("hello", "step 1")
    page.page.reload()
    page.says("hello", "step 1")
    for gate in gates[1:]:
        gate.open()
    page.shows("Succeeded")
    page.page.reload()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")
    expect(page.page.get_by_role("definition")).to_have_text("7")
    page.page.wait_for_timeout(QUIET)
    assert streams(proxy) == 3, "one for each load of the page"
    assert page.problems == []


def test_a_failed_run_shows_its_error(page: Followed, site: HTMXSite) -> None:
    uuid = site.start("steps", gates=[], error="The file has no rows.")
    page.open(site.url, uuid)
    page.shows("Failed: The file has no rows.")
    assert page.problems == []


def test_a_cancelled_run_shows_that(page: Followed, site: HTMXSite, tmp_path: Path) -> None:
    uuid = site.start("talk", gate=str(tmp_path / "never"))
    page.open(site.url, uuid)
    page.shows("Running")
    httpx.post(f"{site.url}/tasks/{uuid}/cancel/").raise_for_status()
    page.shows("Cancelled")
    assert page.problems == []


def test_a_run_that_waits_shows_that(page: Followed, site: HTMXSite) -> None:
    uuid = site.start("unserved", gate="/nobody")
    page.open(site.url, uuid)
    page.shows("Waiting to start")
    assert value_of(page.bar) == [None, 1]
    httpx.post(f"{site.url}/tasks/{uuid}/cancel/").raise_for_status()
    page.shows("Cancelled")
    assert value_of(page.bar) == [0, 1]


def test_a_run_without_a_target_shows_how_far_it_is(page: Followed, site: HTMXSite, gates: list[Gate]) -> None:
    uuid = site.start("steps", gates=paths(gates[:2]), with_target=False)
    page.open(site.url, uuid)
    gates[0].open()
    expect(page.page.locator(".taskapi-count")).to_have_text("1")
    assert value_of(page.bar) == [None, 1]
    page.shows("Running")
    gates[1].open()
    page.shows("Succeeded")
    assert value_of(page.bar) == [1, 1]


def test_html_in_a_message_an_error_or_an_output_stays_text(page: Followed, site: HTMXSite) -> None:
    messages = [SCRIPT, [SCRIPT], {"<b>": '" onload="x'}, "two\nlines", "<hx-partial hx-target='body'>x</hx-partial>"]
    uuid = site.start("steps", gates=[], messages=messages, result=SCRIPT)
    page.open(site.url, uuid)
    page.shows("Succeeded")
    page.says(SCRIPT, json.dumps([SCRIPT]), json.dumps(messages[2]), "twolines", messages[4])
    expect(page.page.get_by_role("definition")).to_have_text(SCRIPT)
    expect(page.page).to_have_title("A run")
    assert page.page.locator("script:not([src]), img").count() == 0
    uuid = site.start("steps", gates=[], error=SCRIPT)
    page.open(site.url, uuid)
    page.shows(f"Failed: {SCRIPT}")
    expect(page.page).to_have_title("A run")
    assert page.problems == []


# Connections that break


def test_a_connection_that_breaks_loses_and_repeats_no_message(
    page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]
) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"])
    page.open(proxy.url, uuid)
    gates[0].open()
    page.says("hello", "step 1")
    page.messages.first.evaluate(MARK)
    proxy.leave()
    gates[1].open()
    wait_for(lambda: site.run(uuid)["message_count"] == 3)
    proxy.come_back()
    page.says("hello", "step 1", "step 2")
    gates[2].open()
    page.says("hello", "step 1", "step 2", "step 3")
    assert page.messages.first.get_attribute("data-mark"), "the page got only what it had not"
    gates[3].open()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")
    assert value_of(page.bar) == [4, 4]


def test_a_server_that_is_started_again_is_found_again(page: Followed, site: HTMXSite, gates: list[Gate]) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"])
    page.open(site.url, uuid)
    gates[0].open()
    page.says("hello", "step 1")
    page.messages.first.evaluate(MARK)
    site.stop("web", signal.SIGKILL)
    gates[1].open()
    site.start_web()
    page.says("hello", "step 1", "step 2")
    assert page.messages.first.get_attribute("data-mark"), "the page got only what it had not"
    for gate in gates[2:]:
        gate.open()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")


def test_an_error_of_a_proxy_in_mid_run_loses_and_repeats_no_message(
    page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]
) -> None:
    """An EventSource gives up then. htmx 2 makes another, which does not know where the first one was."""
    uuid = site.start("steps", gates=paths(gates), messages=["hello"])
    page.open(proxy.url, uuid)
    gates[0].open()
    page.says("hello", "step 1")
    proxy.replace(BAD_GATEWAY, "/events/")
    proxy.cut()
    known = streams(proxy)
    page.page.wait_for_event("requestfinished", lambda _: streams(proxy) >= known + 2)
    proxy.replace_nothing()
    gates[1].open()
    page.says("hello", "step 1", "step 2")
    for gate in gates[2:]:
        gate.open()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")


def test_a_tab_in_the_background_shows_all_when_it_is_looked_at_again(
    page: Followed, site: HTMXSite, proxy: Proxy, gates: list[Gate]
) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"])
    page.open(proxy.url, uuid)
    gates[0].open()
    page.says("hello", "step 1")
    page.page.evaluate(HIDE, True)
    gates[1].open()
    gates[2].open()
    wait_for(lambda: site.run(uuid)["message_count"] == 4)
    page.page.evaluate(HIDE, False)
    page.says("hello", "step 1", "step 2", "step 3")
    gates[3].open()
    page.shows("Succeeded")
    page.says("hello", "step 1", "step 2", "step 3", "step 4")
    assert page.problems == []


# The page's own part


@pytest.mark.parametrize("page", [4], indirect=True)
def test_htmx_4_may_change_the_bar_and_not_replace_it(page: Followed, site: HTMXSite, gates: list[Gate]) -> None:
    def morph(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('hx-swap="innerHTML"', 'hx-swap="innerMorph"'))

    page.page.route("**/4/runs/**", morph)
    uuid = site.start("steps", gates=paths(gates))
    page.open(site.url, uuid)
    gates[0].open()
    expect(page.page.get_by_text("1 of 4")).to_be_visible()
    page.bar.evaluate("bar => { bar.known = true }")
    gates[1].open()
    expect(page.page.get_by_text("2 of 4")).to_be_visible()
    assert page.bar.evaluate("bar => bar.known"), "it is the same element"
    assert value_of(page.bar) == [2, 4]
    for gate in gates[2:]:
        gate.open()
    page.shows("Succeeded")
    assert page.problems == []


def test_a_run_is_followed_that_htmx_has_swapped_into_the_page(
    page: Followed, site: HTMXSite, gates: list[Gate]
) -> None:
    uuid = site.start("steps", gates=paths(gates[:1]))
    page.page.goto(f"{site.url}/{page.version}/?uuid={uuid}")
    page.page.get_by_role("button", name="Show it").click()
    page.shows("Running")
    gates[0].open()
    page.shows("Succeeded")
    page.says("step 1")
    assert page.problems == []


def test_a_template_for_one_task_loads_a_view_once_the_run_has_finished(page: Followed, site: HTMXSite) -> None:
    uuid = site.start("report", lines=5)
    page.open(site.url, uuid)
    expect(page.page.get_by_text("The report has 5 lines.")).to_be_visible()
    page.says("0", "1", "2", "3", "4")
    assert page.problems == []


def test_a_template_that_fails_is_logged_and_the_page_says_so(
    page: Followed, site: HTMXSite, proxy: Proxy, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    uuid = site.start("queries", gate=str(gate))
    page.open(proxy.url, uuid)
    expect(page.page.get_by_role("alert")).to_have_text(CANNOT_SHOW)
    assert "taskapi/queries/status.html" in site.processes["web"].output
    page.page.wait_for_timeout(QUIET)
    assert streams(proxy) == 1, "the page does not try again"
    gate.touch()
    assert site.ended(uuid)["status"] == "succeeded", "the run goes on"


def test_a_run_that_is_deleted_meanwhile_is_said_to_be_gone(page: Followed, site: HTMXSite, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    uuid = site.start("talk", gate=str(gate))
    page.open(site.url, uuid)
    page.shows("Running")
    site.manage("shell", "-c", f"from taskapi.models import TaskInfo; TaskInfo.objects.filter(uuid='{uuid}').delete()")
    expect(page.page.get_by_role("alert")).to_have_text("Not found.")
    gate.touch()


# What assistive technology is told


def test_a_screen_reader_is_told_what_the_bar_is_and_when_the_status_changes(
    page: Followed, site: HTMXSite, gates: list[Gate]
) -> None:
    uuid = site.start("steps", gates=paths(gates), messages=["hello"])
    page.open(site.url, uuid)
    gates[0].open()
    page.shows("Running: a quarter is done")
    expect(page.page.get_by_role("region", name="steps")).to_be_visible()
    expect(page.page.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(page.page.get_by_role("list")).to_have_count(1)
    tree = page.page.context.new_cdp_session(page.page).send("Accessibility.getFullAXTree")
    (bar,) = [node for node in tree["nodes"] if node["role"]["value"] == "progressbar"]
    properties = {each["name"]: each["value"].get("value") for each in bar["properties"]}
    assert (bar["value"]["value"], properties["valuemin"], properties["valuemax"]) == (1, 0, 4)
    (status,) = [node for node in tree["nodes"] if node["role"]["value"] == "status"]
    assert {"live": "polite", "atomic": True}.items() <= {
        each["name"]: each["value"].get("value") for each in status["properties"]
    }.items()
    for gate in gates[1:]:
        gate.open()
    page.shows("Succeeded")
