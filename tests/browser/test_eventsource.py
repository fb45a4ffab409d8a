"""A run on an EventSource, which is all that a page without our script needs. The browser connects and resumes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.site import Site
from tests.support.waiting import LIMIT, wait_for

pytestmark = pytest.mark.timeout(180)

SOON = 3  # times that a source connects while its neighbour, whose run has ended, does not: every 3 s in Chromium
FIRST, SECOND = ["attempt 1", 0, 1, 2], ["attempt 2", 0, 1, 2]  # what the two attempts of the site's task say
FOLLOW = """
([name, path]) => {
  const told = { events: [], messages: [], errors: 0 };
  const source = new EventSource(path);
  for (const type of ["snapshot", "status", "target", "progress", "message", "finished"]) {
    source.addEventListener(type, (event) => {
      const frame = JSON.parse(event.data);
      told.events.push(frame.type);
      if (type === "snapshot") told.messages.push(...frame.task.messages);
    });
  }
  source.addEventListener("message", (event) => told.messages.push(JSON.parse(event.data).message));
  source.addEventListener("error", () => { told.errors += 1; told.state = source.readyState; });
  window[name] = told;
}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        site.start_daphne()
        yield site


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{site.ports['web']}/admin/login/")  # any page of the site
    yield page
    page.close()


def follow(page: Page, path: str, name: str = "told") -> None:
    page.evaluate(FOLLOW, [name, path])


def told(page: Page, name: str = "told") -> dict:
    return page.evaluate("name => window[name]", name)


def start(site: Site, file: Path) -> str:
    with site.client() as client:
        return client.post("/tasks/", json={"task": "steps", "inputs": {"file": str(file)}}).json()["uuid"]


def test_a_page_hears_of_a_run_over_a_restart_of_the_server_and_not_again_after_its_end(page, site, tmp_path):
    file = tmp_path / "go on"
    uuid = start(site, file)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    follow(page, f"/tasks/{uuid}/events/")
    wait_for(lambda: told(page)["messages"] == FIRST)
    assert site.processes["web"].stop() == 0
    site.start_daphne()
    wait_for(lambda: told(page)["messages"] == FIRST + SECOND, 3 * LIMIT)
    file.touch()
    wait_for(lambda: "finished" in told(page)["events"])
    events = told(page)["events"]
    assert events.count("snapshot") == 2
    assert events[-1] == "finished"
    assert told(page)["messages"] == FIRST + SECOND

    connections = []

    def end_at_once(route):
        connections.append(route)
        route.fulfill(content_type="text/event-stream", body="data: {}\n\n")

    page.route("**/neighbour/", end_at_once)
    follow(page, "/neighbour/", "neighbour")
    before = [url for url in asked if uuid in url]
    wait_for(lambda: page.wait_for_timeout(50) or len(connections) >= SOON, 3 * LIMIT)
    assert [url for url in asked if uuid in url] == before


def test_a_run_that_is_not_there_is_not_asked_for_again(page):
    follow(page, "/tasks/00000000-0000-0000-0000-000000000000/events/")
    wait_for(lambda: told(page)["errors"])
    assert told(page)["state"] == 2  # closed, for good
