"""getting-started.md, followed word for word in an empty virtual environment, and its page in a real Chromium."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.newcomer import Newcomer
from tests.docs.pages import Fence, fences, text_of

PAGE = "docs/getting-started.md"
PRODUCTION = "## For production"
LANGUAGES = ("python", "html", "sh", "text")

BAR_LIMIT = 60_000  # milliseconds for what takes ten seconds on an idle machine
WATCH = (
    "bar => { window.seen = []; new MutationObserver(() => seen.push(bar.value)).observe(bar, { attributes: true }) }"
)
HALFWAY = "new Set(seen.filter((value) => value > 0 && value < 10)).size >= 2"

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 640}


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    newcomer.stop()


@pytest.mark.timeout(1200)  # seconds: pip may have to download everything
def test_a_newcomer_sees_the_bar_move(newcomer: Newcomer, chromium: Browser, tmp_path: Path) -> None:
    before, after = in_two(PAGE, PRODUCTION)
    with nobody_calls(newcomer.ports["6379"]):
        newcomer.follow(before)
        check_the_bar(chromium, newcomer.url, tmp_path / "local")
        newcomer.stop()
    newcomer.follow(after)
    check_the_bar(chromium, newcomer.url, tmp_path / "production")


@contextmanager
def nobody_calls(port: int) -> Iterator[None]:
    """Listen where Redis would be, and fail if somebody connects."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        yield
        with pytest.raises(BlockingIOError):
            listener.accept()


def in_two(page: str, heading: str) -> tuple[list[Fence], list[Fence]]:
    """The page's blocks before and after the heading."""
    line = text_of(page).splitlines().index(heading) + 1
    blocks = fences(page, *LANGUAGES)
    return [fence for fence in blocks if fence.line < line], [fence for fence in blocks if fence.line > line]


def check_the_bar(chromium: Browser, url: str, screenshots: Path) -> None:
    """Press the button, and see the bar at two values on its way, which came over a WebSocket."""
    page = chromium.new_page(viewport=DESKTOP)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    events: list[dict] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: events.append(json.loads(frame))))
    page.goto(url)
    bar = page.get_by_role("progressbar", name="Progress")
    bar.evaluate(WATCH)
    page.get_by_role("button", name="Count to ten").click()
    page.wait_for_function(HALFWAY, timeout=BAR_LIMIT)
    take_pictures(page, screenshots)
    expect(page.get_by_role("status")).to_have_text("succeeded", timeout=BAR_LIMIT)
    assert bar.evaluate("bar => [bar.value, bar.max]") == [10, 10]
    sent = {event["progress"] for event in events if event["type"] == "progress"}
    seen = {value for value in page.evaluate("seen") if 0 < value < 10}
    assert seen <= sent, "a progress came in another way than over the WebSocket"
    assert errors == []
    page.close()


def take_pictures(page: Page, folder: Path) -> None:
    """Show the page in light and dark, wide and narrow; nothing sticks out."""
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"{name}-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name}: the page scrolls sideways"


def test_the_readme_has_the_same_steps() -> None:
    """So the test above is one of the README too."""
    assert steps("README.md") == steps(PAGE)


def steps(page: str) -> list[str]:
    """Files, and commands one by one."""
    found = []
    for fence in fences(page, "python", "html", "sh"):
        found += fence.code.splitlines() if fence.language == "sh" else [fence.code] * len(fence.files)
    return [step for step in found if not step.startswith("make ")]  # targets, which other tests know
