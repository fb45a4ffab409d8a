"""What a real page says about the mistakes of day one: in its console, and in the errors of its promises."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.stack import WEB_SERVES, free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

START_TWO = "() => { for (const n of [1, 2]) TaskAPI.run('unserved', { gate: '' }); }"  # it waits for neither
LIMIT = 60.0  # seconds: within a minute a mistake is told


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page()
    yield page
    page.close()


def said(page: Page) -> list[str]:
    """What the console says from now on."""
    texts: list[str] = []
    page.on("console", lambda message: texts.append(message.text) if message.text.startswith("TaskAPI:") else None)
    return texts


def refusal(page: Page, call: str) -> str:
    """The message with which the call is refused."""
    return page.evaluate(f"{call}.then(() => 'no error', (error) => error.message)")


def test_the_console_says_that_no_worker_takes_the_queue(page, site):
    texts = said(page)
    page.goto(site.url)
    page.evaluate(START_TWO)
    wait_for(lambda: page.evaluate("1") and texts, LIMIT)
    (text,) = texts
    assert text.startswith("TaskAPI: A task waits. No worker takes the queue 'nobody'. Start one: ")
    assert text.endswith("python manage.py taskworker --queue nobody")


def test_the_console_says_that_djangos_own_asgi_serves_no_websocket(page, site):
    port = free_port()
    server = site._start("kept", "daphne", "--port", str(port), "tests.integration.djangos_asgi:application")
    try:
        server.wait_for_output(WEB_SERVES)
        texts = said(page)
        page.goto(f"http://127.0.0.1:{port}")
        page.evaluate(START_TWO)
        wait_for(lambda: page.evaluate("1") and texts[1:], LIMIT)
        no_socket, no_worker = texts
        assert f"The server has no WebSocket at ws://127.0.0.1:{port}/tasks/ws/" in no_socket
        assert "import get_asgi_application from taskapi.asgi" in no_socket
        assert "No worker takes the queue 'nobody'" in no_worker
    finally:
        site.stop("kept")


def test_the_error_says_that_an_address_has_no_api_and_which_input_was_meant(page, site):
    page.goto(site.url)
    told = refusal(page, "TaskAPI.run('talk', { gaet: '' })")
    assert told == "Unknown input 'gaet'. Did you mean 'gate'?"
    page.evaluate("TaskAPI.options.baseURL = '/nowhere/'")
    told = refusal(page, "TaskAPI.run('talk', { gate: '' })")
    assert told.startswith(f"There is no Django Task API at {site.url}/nowhere/. It answered 404")
