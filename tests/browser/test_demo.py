"""The demo as a visitor sees it: in a real Chromium, on its real servers."""

import json
import re
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, FilePayload, Page, WebSocketRoute, expect

from tests.browser.conftest import LIMIT
from tests.support.demo import Demo, descendants

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

# Collects the values of the first bar.
OBSERVE_BAR = """
() => {
  const bar = document.querySelector("#profile .work");
  window.seen = [];
  new MutationObserver(() => {
    const value = bar.getAttribute("aria-valuenow");
    if (value !== null && Number(value) !== window.seen.at(-1)) window.seen.push(Number(value));
  }).observe(bar, { attributes: true, attributeFilter: ["aria-valuenow"] });
}
"""

# Collects the values of the bar of the upload.
OBSERVE_UPLOAD = OBSERVE_BAR.replace(".work", ".upload [role=progressbar]").replace("window.seen", "window.sent")


def csv(text: str, name: str = "mine.csv") -> FilePayload:
    return {"name": name, "mimeType": "text/csv", "buffer": text.encode()}


def profile(page: Page, file: FilePayload | None = None) -> None:
    """Choose the file, or the sample, and press the button."""
    if file:
        page.get_by_label("Choose a CSV file").set_input_files([file])
    page.get_by_role("button", name="Profile it").click()


class HeldBack:
    """Holds up frames of some types on their way from the server to a page."""

    def __init__(self, page: Page, *types: str) -> None:
        self.types = set(types)
        self.frames: list[tuple[WebSocketRoute, str, str]] = []
        page.route_web_socket("**/tasks/ws/", self.connect)

    def connect(self, socket: WebSocketRoute) -> None:
        socket.connect_to_server().on_message(lambda frame: self.carry(socket, json.loads(frame)["type"], frame))

    def carry(self, socket: WebSocketRoute, kind: str, frame: str) -> None:
        if kind in self.types:
            self.frames.append((socket, kind, frame))
        else:
            socket.send(frame)

    def let_pass(self, kind: str) -> None:
        """Let frames of this type pass, from now on and those that were held up."""
        self.types.remove(kind)
        waiting, self.frames = self.frames, []
        for frame in waiting:
            self.carry(*frame)


def figures(page: Page) -> dict[str, str]:
    """The figures above the charts, by their names."""
    entries = page.locator("#profile .figures > div").all()
    return {entry.locator("dt").inner_text(): entry.locator("dd").inner_text() for entry in entries}


def test_the_sample_is_profiled_over_a_websocket_while_the_bar_moves(page):
    page.evaluate(OBSERVE_BAR)
    profile(page)
    card = page.get_by_role("region", name="Profile a CSV file")
    expect(card.locator(".run-status")).to_have_text("Done")

    seen = page.evaluate("window.seen")
    target = int(card.get_by_role("progressbar").get_attribute("aria-valuemax"))
    assert len(seen) >= 4, seen
    assert seen == sorted(seen)
    assert seen[-1] == target > 25_000

    expect(page.locator("#connection")).to_have_text("WebSocket")
    expect(card.locator(".run-facts")).to_contain_text("over WebSocket")
    rows = target - 1  # the first line names the columns
    assert figures(page) == {
        "rows": f"{rows:,}",
        "columns": "11",
        "rows with problems": "0",
        "duplicate rows": "0",
    }
    expect(card.get_by_role("img", name=f"A map of {rows:,} rows")).to_be_visible()
    countries = card.get_by_role("figure").filter(has_text="country").locator("li")
    expect(countries).to_have_count(10)
    expect(countries.first).to_contain_text("US")
    expect(card.get_by_role("figure").filter(has_text="elevation").locator("rect")).not_to_have_count(0)
    expect(card.locator("details.column")).to_have_count(11)


def test_polling_carries_a_run_where_there_is_no_websocket(page, demo):
    page.goto(f"{demo.url}?transport=polling")
    profile(page, csv("fruit,weight\napple,120\npear,heavy\nplum,12\nfig,40\nkiwi,75\n"))
    expect(page.locator("#profile .run-status")).to_have_text("Done")
    expect(page.locator("#profile .run-facts")).to_contain_text("over polling")
    expect(page.locator("#connection")).to_have_text("polling")
    expect(page.locator("#profile .messages li")).to_have_count(1)


def test_a_chart_can_be_read_with_the_keyboard(page):
    profile(page, csv("n,weight\n" + "".join(f"{n},{n % 5}\n" for n in range(50))))
    plot = page.get_by_role("slider", name="weight").first
    plot.focus()
    plot.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", "0 to 1: 10 rows")
    plot.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuetext", "1 to 2: 10 rows")


def test_a_broken_row_of_the_visitors_file_is_told(page):
    profile(page, csv("fruit,weight\napple,120\npear,heavy\nplum,12\nfig,40\nkiwi,75\n"))
    messages = page.get_by_role("log", name="Messages of “Profile a CSV file”")
    expect(messages).to_have_text("line 3 weight: a number was expected, “heavy” came")
    expect(page.locator("#profile .run-count")).to_have_text("6 of 6 lines")
    expect(page.locator("#own-file")).to_have_text("mine.csv, 1 kB")
    assert figures(page)["rows with problems"] == "1"


def test_many_broken_rows_are_told_in_part(page):
    profile(page, csv("a,b\n1,2\n" + "1\n" * 80))
    messages = page.locator("#profile .messages li")
    expect(messages).to_have_count(51)
    expect(messages.last).to_have_text("… and 30 more rows with problems.")


def test_what_a_file_holds_is_never_markup(page):
    profile(page, csv("<b>a</b>,n\n<img src=x onerror=alert(1)>,1\n<i>,2\n<i>,3,4\n"))
    expect(page.locator("#profile .profile")).to_be_visible()
    assert page.locator("#profile .profile").locator("b, i, img").count() == 0


def test_a_file_without_a_header_fails_with_a_sentence(page):
    profile(page, csv("\n\n"))
    expect(page.locator("#profile").get_by_role("alert")).to_have_text(
        "The file has no header row: its first line must name the columns."
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file is empty: it has 0 bytes."),
        (b"PK\x03\x04" + bytes(100), "This is no CSV file: it is a spreadsheet (.xlsx, .ods) or a ZIP archive."),
        (b"a,b\n1,\0\n", "This is no text file: it has bytes of value zero."),
    ],
)
def test_what_is_no_csv_file_fails_with_a_sentence(page, content, sentence):
    profile(page, {"name": "mine.csv", "mimeType": "text/csv", "buffer": content})
    expect(page.locator("#profile").get_by_role("alert")).to_contain_text(sentence)
    expect(page.locator("#profile .run-status")).to_have_text("Failed")


def test_a_file_that_is_too_large_is_not_sent(page):
    assert page.get_by_label("Choose a CSV file").get_attribute("data-max-bytes") == "250000000"
    page.evaluate("document.querySelector('[data-max-bytes]').dataset.maxBytes = 1_000_000")
    profile(page, csv("a\n" + "1\n" * 600_000))
    expect(page.locator("#profile").get_by_role("alert")).to_have_text(
        "This file has 1.2 MB, and the demo takes up to 1.0 MB. Nothing was sent."
    )
    expect(page.locator("#profile .upload")).to_be_hidden()


def test_a_file_with_decimal_commas_in_latin_1_is_read_and_that_is_told(page):
    text = "ort;preis\n" + "Mühle;1.234,5\nHof;2,5\n" * 3
    profile(page, {"name": "ernte.csv", "mimeType": "text/csv", "buffer": text.encode("latin-1")})
    messages = page.locator("#profile .messages li")
    expect(messages).to_have_count(2)
    expect(messages.first).to_contain_text("The file is not UTF-8, so it was read as Latin-1")
    expect(messages.last).to_have_text("Decimal commas: “1.234,5” is read as 1234.5 in preis.")
    expect(page.locator(".column", has_text="preis")).to_contain_text("2.5 to 1,235")
    expect(page.locator("#profile .value", has_text="Mühle")).not_to_have_count(0)


def harvest(path: Path, megabytes: float) -> Path:
    """Write a file of that size, in which few values are the same."""
    block = "".join(
        f"{n},2024-{n % 12 + 1:02}-{n % 28 + 1:02},kind {n % 5},{n % 977 / 7:.3f},{n * 31}\n" for n in range(20_000)
    )
    with path.open("w") as file:
        file.write("id,day,kind,weight,code\n")
        while file.tell() < megabytes * 1e6:
            file.write(block)
    return path


def slow_line(page: Page, bytes_a_second: float) -> None:
    """Send no faster than that: the throttle of Chromium's own tools."""
    throttle = {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": bytes_a_second}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", throttle)


def test_a_file_is_sent_while_its_bar_moves_and_shows_a_picture_before_the_end(page, tmp_path):
    held_back = HeldBack(page, "finished")
    page.reload()
    slow_line(page, 1e6)
    page.evaluate(OBSERVE_UPLOAD)
    page.get_by_label("Choose a CSV file").set_input_files(harvest(tmp_path / "harvest.csv", 3))
    page.get_by_role("button", name="Profile it").click()
    card = page.get_by_role("region", name="Profile a CSV file")
    upload = card.get_by_role("progressbar", name="Upload of “Profile a CSV file”")
    expect(card.locator(".run-status")).to_have_text("Sending the file …")
    expect(upload).to_be_visible()
    expect(card.locator(".upload-facts")).to_have_text(re.compile(r"of 3\.\d MB.*a second"))

    expect(card.locator(".picture h3")).to_have_text(re.compile(r"The first [\d,]{4,} rows"))
    expect(card.locator(".picture").get_by_role("img", name="weight: values from 0 to")).to_be_visible()
    expect(card.locator(".picture figure")).to_have_count(4)
    expect(card.locator(".run-status")).to_have_text("Running …")
    expect(card.locator(".messages")).to_be_hidden()  # pictures are no words
    expect(card.locator(".upload-facts")).to_have_text(re.compile(r"3\.\d MB sent"))

    held_back.let_pass("finished")
    expect(card.locator(".run-status")).to_have_text("Done")
    expect(card.locator(".picture")).to_have_count(0)
    expect(upload).to_be_hidden()
    sent = page.evaluate("window.sent")
    assert len(sent) >= 3, sent
    assert sent == sorted(sent)
    assert sent[-1] == 100


def test_the_profile_can_be_downloaded_also_after_the_page_was_loaded_anew(page):
    profile(page, csv("fruit,weight\napple,120\npear,heavy\nplum,12\nfig,40\nkiwi,75\n", "fruit & nuts.csv"))
    expect(page.locator("#profile .run-status")).to_have_text("Done")
    page.reload()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download the profile").click()
    download = waiting.value
    assert download.suggested_filename == "fruit & nuts-profile.json"
    report = json.loads(Path(download.path()).read_text())
    assert (report["rows"], report["problems"]) == (5, 1)
    assert [column["name"] for column in report["columns"]] == ["fruit", "weight"]


def test_an_upload_is_cancelled_and_begun_again(page, tmp_path):
    file = harvest(tmp_path / "harvest.csv", 3)
    slow_line(page, 5e5)
    page.get_by_label("Choose a CSV file").set_input_files(file)
    page.get_by_role("button", name="Profile it").click()
    card = page.get_by_role("region", name="Profile a CSV file")
    expect(card.locator(".run-status")).to_have_text("Sending the file …")
    card.get_by_role("button", name="Cancel “Profile a CSV file”").press("Enter")
    expect(card.locator(".run-status")).to_have_text("Not sent: nothing was started")
    expect(card.get_by_role("button", name="Profile it")).to_be_focused()
    expect(card.get_by_role("alert")).to_be_hidden()  # this is no error
    assert page.evaluate("sessionStorage.length") == 0

    slow_line(page, -1)
    page.keyboard.press("Enter")
    expect(card.locator(".run-status")).to_have_text("Done")


def test_a_run_that_is_cancelled_keeps_the_picture_of_what_it_has_seen(page, tmp_path):
    page.get_by_label("Choose a CSV file").set_input_files(harvest(tmp_path / "harvest.csv", 40))
    page.get_by_role("button", name="Profile it").click()
    expect(page.locator("#profile .picture")).to_be_visible()
    page.get_by_role("button", name="Cancel “Profile a CSV file”").click()
    expect(page.locator("#profile .run-status")).to_have_text("Cancelled")
    expect(page.locator("#profile .picture")).to_be_visible()


def peak_of(demo: Demo, part: str) -> float:
    """The most memory that a process of the demo has had so far, in MB."""
    [pid] = [pid for pid, command in descendants(demo.process.pid).items() if part in command]
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what a process has had")
def test_100_megabytes_take_little_memory_and_the_time_left_is_told(page, demo, tmp_path):
    processes = ("demo.tether daphne", "demo.manage taskworker")
    before = [peak_of(demo, process) for process in processes]
    page.get_by_label("Choose a CSV file").set_input_files(harvest(tmp_path / "harvest.csv", 100))
    page.get_by_role("button", name="Profile it").click()
    facts = page.locator("#profile .run-facts")
    expect(facts).to_have_text(re.compile(r"[\d,]+ lines a second.*\d s left"))
    expect(page.locator("#profile .picture")).to_be_visible()
    expect(page.locator("#profile .run-status")).to_have_text("Done", timeout=100_000)
    server, worker = (peak_of(demo, process) - was for process, was in zip(processes, before, strict=True))
    assert server < 30
    assert worker < 200


def test_bad_input_is_answered_with_the_parameters_name_and_good_input_with_the_sum(page):
    card = page.get_by_role("region", name="Add numbers")
    numbers = card.get_by_label("Numbers", exact=True)
    numbers.fill("1, two, 3")
    numbers.press("Enter")
    expect(card.get_by_role("alert")).to_contain_text("numbers: ")
    expect(card.get_by_role("alert")).to_contain_text("A valid number is required.")
    expect(numbers).to_have_attribute("aria-invalid", "true")

    numbers.fill("1, 2, 3.5")
    numbers.press("Enter")
    expect(card.locator(".result")).to_have_text("= 6.5")
    expect(card.get_by_role("alert")).to_be_hidden()
    expect(numbers).to_have_attribute("aria-invalid", "false")


def test_waiting_counts_the_seconds(page):
    card = page.get_by_role("region", name="Wait a while")
    card.get_by_label("Seconds").fill("1")
    card.get_by_role("button", name="Wait").click()
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    expect(card.locator(".run-status")).to_have_text("Done")


def test_a_run_is_cancelled_with_the_keyboard(page):
    held_back = HeldBack(page, "cancelling", "finished")
    page.reload()  # so that the route is set before the page's WebSocket opens
    card = page.get_by_role("region", name="Wait a while")
    cancel = card.get_by_role("button", name="Cancel “Wait a while”")
    expect(cancel).to_be_hidden()
    card.get_by_label("Seconds").fill("600")
    card.get_by_label("Seconds").press("Enter")
    expect(cancel).to_be_visible()
    card.get_by_role("button", name="Wait", exact=True).focus()
    page.keyboard.press("Tab")
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(card.locator(".run-status")).to_have_text("Asking to cancel …")
    expect(cancel).to_have_attribute("aria-disabled", "true")

    held_back.let_pass("cancelling")
    expect(card.locator(".run-status")).to_have_text("Cancelling …")
    expect(cancel).to_have_attribute("aria-disabled", "true")
    expect(cancel).to_be_focused()

    held_back.let_pass("finished")
    expect(card.locator(".run-status")).to_have_text("Cancelled")
    expect(cancel).to_be_hidden()
    expect(card.get_by_role("alert")).to_be_hidden()  # this is no error
    expect(card.get_by_role("button", name="Wait", exact=True)).to_be_focused()


def test_a_page_that_is_loaded_anew_goes_on_showing_its_runs(page):
    profile(page, csv("fruit,weight\napple,120\npear,heavy\nplum,12\nfig,40\nkiwi,75\n"))
    expect(page.locator("#profile .run-status")).to_have_text("Done")
    card = page.get_by_role("region", name="Wait a while")
    card.get_by_label("Seconds").fill("600")
    card.get_by_role("button", name="Wait", exact=True).click()
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")

    page.reload()
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "3")
    expect(page.locator("#profile .run-status")).to_have_text("Done")
    expect(page.locator("#profile .messages li")).to_have_text("line 3 weight: a number was expected, “heavy” came")
    assert figures(page)["rows"] == "5"
    expect(page.locator("#sum .run-status")).to_contain_text("Not started yet.")

    card.get_by_role("button", name="Cancel").click()
    expect(card.locator(".run-status")).to_have_text("Cancelled")
    page.reload()
    expect(card.locator(".run-status")).to_have_text("Cancelled")


def test_a_run_that_is_gone_is_not_looked_for_again(page):
    page.evaluate("uuid => sessionStorage.setItem('run of wait', uuid)", str(uuid4()))
    page.reload()
    expect(page.locator("#wait .run-status")).to_contain_text("Not started yet.")
    assert page.evaluate("sessionStorage.length") == 0


def test_the_code_of_each_task_is_shown(page):
    for name in ("ProfileCsv", "SumNumbers", "WaitTask"):
        expect(page.locator("pre", has_text=f"class {name}(Task):")).to_have_count(1)


@pytest.mark.parametrize("width", [320, 375, 430, 768])
def test_a_phone_shows_everything_in_its_width(page, tmp_path, width):
    page.set_viewport_size({"width": width, "height": 812})
    profile(page)
    expect(page.locator("#profile .profile")).to_be_visible()
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_server_that_is_gone_is_told_and_the_run_goes_on_when_it_is_back(chromium: Browser, tmp_path):
    with Demo(tmp_path) as demo:
        page = chromium.new_page()
        page.set_default_timeout(LIMIT)
        page.goto(demo.url)
        card = page.get_by_role("region", name="Wait a while")
        card.get_by_label("Seconds").fill("6")
        card.get_by_role("button", name="Wait").click()
        expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")

        demo.stop(signal.SIGINT)
        gone = page.get_by_role("alert").filter(has_text="The server does not answer.")
        expect(gone).to_be_visible()

        demo.arguments[0] = f"--port={demo.url.rstrip('/').rpartition(':')[2]}"
        demo.start()
        expect(gone).to_be_hidden()
        expect(card.locator(".run-status")).to_have_text("Done", timeout=60_000)
        expect(card.locator(".run-facts")).to_contain_text("attempt 2")
        page.close()
