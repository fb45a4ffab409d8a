"""Files that a page of a real Chromium gives to a task: on a slow line, cut and begun again, given up, refused."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.proxy import Proxy
from tests.browser.recording import Site
from tests.browser.site.settings import UPLOAD_BYTES
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)  # seconds: the first test starts the servers and the browser

LARGE = 100 * 2**20  # bytes
SLOW = 2**20  # bytes a second: a large file takes longer than a test may
LIMIT = 60_000  # milliseconds for a large file, on a busy machine
TRANSPORTS = ["websocket", "polling"]


@pytest.fixture
def page(chromium: Browser, proxy: Proxy) -> Iterator[Page]:
    """The sample of docs/javascript.md with the two bars; an error that it does not catch fails the test."""
    page = chromium.new_page(viewport={"width": 640, "height": 320})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{proxy.url}upload")
    page.evaluate("""() => {
        const { run } = TaskAPI;
        window.told = { uploads: [], transports: [] };
        TaskAPI.run = (...order) => {
            window.handle = run(...order);
            handle.on("upload", (event) => told.uploads.push(event));
            handle.on("transport", (event) => told.transports.push(event.transport));
            return handle;
        };
    }""")
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "people.csv"
    with path.open("wb") as file:
        for number in range(100):
            file.write(bytes([number]) * (LARGE // 100))
    return path


def kept(site: Site) -> list[tuple[str, int]]:
    """Name and size of each file that the server knows; there is nothing else in its storage."""
    with sqlite3.connect(site.database["NAME"]) as database:
        rows = database.execute("SELECT name, size FROM taskapi_storedfile ORDER BY id").fetchall()
    stored = [path.stat().st_size for path in (site.directory / "media").rglob("*") if path.is_file()]
    assert sorted(stored) == sorted(size for _, size in rows)
    return rows


def runs(site: Site) -> int:
    with sqlite3.connect(site.database["NAME"]) as database:
        return database.execute("SELECT count(*) FROM taskapi_taskinfo").fetchone()[0]


def uploads(page: Page) -> list[dict[str, Any]]:
    return page.evaluate("told.uploads")


def in_the_middle(page: Page) -> None:
    """Wait until a part of the file has left, and its rate is known."""
    wait_for(lambda: (told := uploads(page)) and told[-1]["rate"] and told[-1]["fraction"] > 0)
    assert uploads(page)[-1]["fraction"] < 1


def check_events(told: list[dict[str, Any]], size: int) -> None:
    loaded = [event["loaded"] for event in told]
    assert loaded == sorted(loaded)
    assert (loaded[0], loaded[-1]) == (0, size)
    assert {event["total"] for event in told} == {size}
    assert (told[-1]["fraction"], told[-1]["eta"]) == (1, 0)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_large_file_on_a_slow_line_is_cut_and_begun_again(
    page: Page, site: Site, proxy: Proxy, large: Path, transport: str
) -> None:
    page.evaluate("transport => Object.assign(TaskAPI.options, { transport })", transport)
    before = kept(site), runs(site)
    page.get_by_label("File").set_input_files(large)
    proxy.rate = SLOW
    page.get_by_text("Import").click()
    in_the_middle(page)
    expect(page.get_by_role("status")).to_contain_text("s left")
    proxy.cut()
    said = page.get_by_role("status")
    expect(said).to_contain_text('"people.csv" (104857600 bytes) was not uploaded: no answer came')
    expect(said).to_contain_text("Nothing is kept of it.")
    assert (kept(site), runs(site)) == before

    proxy.rate = None
    page.evaluate("told.uploads.length = 0")
    page.get_by_text("Import").click()
    expect(said).to_have_text(f"{LARGE} people were imported.", timeout=LIMIT)
    check_events(uploads(page), LARGE)
    run = page.evaluate("() => handle")
    assert run["outputs"]["digest"] == hashlib.sha256(large.read_bytes()).hexdigest()
    assert page.evaluate("told.transports") == [transport]
    assert page.evaluate("[work.value, work.max]") == [LARGE, LARGE]
    assert [line for line in proxy.requests if "/uploads/" in line] == ["POST /tasks/uploads/ HTTP/1.1"] * 2
    assert (kept(site), runs(site)) == ([*before[0], ("people.csv", LARGE)], before[1] + 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("by", ["signal", "cancel", "detach"])
def test_an_upload_that_is_given_up_leaves_nothing_on_the_server(
    page: Page, site: Site, proxy: Proxy, large: Path, *, transport: str, by: str
) -> None:
    before = kept(site), runs(site)
    page.get_by_label("File").set_input_files(large)
    proxy.rate = SLOW
    page.evaluate(
        """transport => {
            Object.assign(TaskAPI.options, { transport });
            window.controller = new AbortController();
            const file = document.querySelector("input").files[0];
            TaskAPI.run("import-people", { file }, { signal: controller.signal });
            window.outcome = handle.uuid.catch((error) => error.name);
            handle.catch(() => {});
        }""",
        transport,
    )
    in_the_middle(page)
    page.evaluate({"signal": "controller.abort()", "cancel": "handle.cancel()", "detach": "handle.detach()"}[by])
    assert page.evaluate("outcome") == "AbortError"
    proxy.rate = None
    wait_for(lambda: proxy.connections == 0)
    # what comes after it is all that is there
    page.get_by_label("File").set_input_files({"name": "a.csv", "mimeType": "text/csv", "buffer": b"12345"})
    page.get_by_text("Import").click()
    expect(page.get_by_role("status")).to_have_text("5 people were imported.")
    assert (kept(site), runs(site)) == ([*before[0], ("a.csv", 5)], before[1] + 1)


def test_blobs_and_empty_files_and_lists_of_files_arrive(page: Page) -> None:
    run = page.evaluate("""() => TaskAPI.run("digest", {
        files: [new File([], "empty.csv"), new Blob(["photo"], { type: "image/png" }), new File(["ä"], "Müll 1.csv")],
    })""")
    found = [(file["name"], file["size"]) for file in run["outputs"]["found"]]
    assert found == [("empty.csv", 0), ("files.png", 5), ("Müll 1.csv", 2)]
    check_events(uploads(page), 7)


def test_a_file_over_the_limit_is_refused_with_the_limit_and_a_remedy(page: Page, site: Site) -> None:
    before = kept(site), runs(site)
    error = page.evaluate(
        """size => TaskAPI.run("import-people", { file: new Blob([new Uint8Array(size)]) })
            .catch(({ name, status, code, message }) => ({ name, status, code, message }))""",
        UPLOAD_BYTES + 2**20,
    )
    assert (error["name"], error["status"], error["code"]) == ("RequestError", 413, "too_large")
    assert f"{UPLOAD_BYTES} bytes is the limit" in error["message"]
    assert "raise `upload_bytes`" in error["message"]
    assert (kept(site), runs(site)) == before
