"""Tabs of a real Chromium that start runs in a storm, with the committed build of the JavaScript client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from tests.faults.promises import FINAL
from tools.chromium import find

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
LOOK = 0.25  # seconds between two looks at what the tabs have recorded
OUTCOMES = {"succeeded": "succeeded", "TaskFailed": "failed", "TaskCancelled": "cancelled"}  # names, and statuses
COMPARED = ("uuid", "status", "progress", "target", "seq", "message_count", "outputs", "error", "attempt", "messages")


def chromium_path() -> str:
    path = find()  # call it before `chromium`: it starts its own Playwright
    assert path, "no Chromium was found: `python -m tools.chromium` installs it, or says how to"
    return path


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Browser]:
    """One browser for the tabs of all storms."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


class Tabs:
    """One tab for each site, an address and the transport that its client uses."""

    def __init__(self, browser: Browser, sites: list[tuple[str, str]]) -> None:
        self.browser = browser
        self.sites = sites
        self.pages: list[Page] = []
        self.records: list[dict[str, Any]] = []  # after `settle`, of all runs that were started
        self.errors: list[str] = []  # that no page caught

    async def open(self) -> None:
        for url, transport in self.sites:
            page = await self.browser.new_page()
            page.on("pageerror", lambda error: self.errors.append(str(error)))
            await page.goto(f"{url}/page/")
            await page.evaluate("transport => { TaskAPI.options.transport = transport }", transport)
            self.pages.append(page)

    async def start(self, number: int, task: str, inputs: dict[str, Any]) -> None:
        """Start a run from one of the tabs."""
        page = self.pages[number % len(self.pages)]
        await page.evaluate("order => start(...order)", [task, inputs])

    async def settle(self, limit: float) -> None:
        """Wait until all promises have settled, at most `limit` seconds, and keep what the tabs recorded."""
        unsettled = "records.filter((record) => record.outcomes.length === 0).length"
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while sum([await page.evaluate(unsettled) for page in self.pages]):  # noqa: ASYNC110 - in another process
                    await asyncio.sleep(LOOK)
        self.records = [record for page in self.pages for record in await page.evaluate("records")]


def was_refused(record: dict[str, Any]) -> bool:
    """Whether the client gave up starting the run: each answer was a stranger's, or the database was down."""
    names = [outcome["name"] for outcome in record["outcomes"]]
    return record["uuid"] is None and names == record["ends"] == ["RequestError"]


def check_page(record: dict[str, Any], run: dict[str, Any]) -> None:
    """The promise settled once, as the run ended, and no callback was called afterwards."""
    names = [outcome["name"] for outcome in record["outcomes"]]
    assert names, "a promise that never settled"
    assert len(names) == 1
    (outcome,) = record["outcomes"]
    assert outcome["name"] in OUTCOMES, f"settled without an end of the run: {outcome}"[:500]
    assert run["status"] in FINAL
    assert OUTCOMES[outcome["name"]] == run["status"]
    assert record["ends"] == [run["status"] if outcome["name"] == "succeeded" else outcome["name"]]
    assert record["late"] == 0
    differing = [name for name in COMPARED if outcome["run"][name] != run[name]]
    assert differing == []
