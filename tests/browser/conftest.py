"""A running demo, and pages of a real Chromium on it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.demo import Demo
from tools.chromium import find

ARGUMENTS = [
    "--no-sandbox",  # tests run as root, too
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIMIT = 20_000  # milliseconds until what a test waits for is there

expect.set_options(timeout=LIMIT)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


# Of a module and not of the session: while Playwright runs, its event loop does, and async tests want one of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = find()
    assert path, "no Chromium was found: `python -m tools.chromium` installs one, or says how"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, demo: Demo) -> Iterator[Page]:
    """The demo's page; an error in its console fails the test."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(LIMIT)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(demo.url)
    yield page
    page.close()
    assert errors == []
