"""Pages of a real Chromium: on a running demo, and on a site that records every call of the JavaScript client."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.browser.proxy import Proxy
from tests.browser.recording import Recording, Site
from tests.support.databases import Databases
from tests.support.demo import Demo
from tests.support.stack import Process
from tools.chromium import find

ARGUMENTS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIMIT = 20_000  # milliseconds that a test waits for something

expect.set_options(timeout=LIMIT)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = find()  # before `playwright`: it starts its own Playwright, and only one can run
    assert path, "no Chromium was found: `python -m tools.chromium` installs it, or says how to"
    return path


# For a module and not for the session: Playwright's event loop runs meanwhile, and async tests need their own.
@pytest.fixture(scope="module")
def playwright(chromium_path: str) -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(playwright: Playwright, chromium_path: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def untouched_chromium(playwright: Playwright, chromium_path: str, tmp_path: Path) -> Iterator[Browser]:
    """A Chromium whose tabs hide each other. Under Playwright's usual arguments, every page is visible."""
    command = [chromium_path, "--headless", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    process = Process("chromium", [*command, *ARGUMENTS, "about:blank"], dict(os.environ), tmp_path / "chromium.log")
    try:
        address = process.wait_for_output(r"DevTools listening on (ws://\S+)")[1]
        browser = playwright.chromium.connect_over_cdp(address, no_defaults=True)
        yield browser
        browser.close()
    finally:
        process.stop()


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


@pytest.fixture(scope="module")
def site(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(databases.new("sqlite"), tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """A proxy between the page and the site's web server."""
    with Proxy(site.port) as proxy:
        yield proxy


@pytest.fixture
def recording(chromium: Browser, site: Site, proxy: Proxy, tmp_path: Path) -> Iterator[Recording]:
    """The site's page; an error that it does not catch fails the test."""
    page = chromium.new_page()
    with Recording(page, site, proxy.url, tmp_path) as recording:
        yield recording
    page.close()
