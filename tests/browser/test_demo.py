"""The demo as a visitor sees it: in a real Chromium, on its real servers."""

import json
import signal
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, FilePayload, Page, WebSocketRoute, expect

from tests.browser.conftest import LIMIT
from tests.support.demo import Demo

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

# Collects the values of the first bar.
OBSERVE_BAR = """
() => {
  const bar = document.querySelector("#profile [role=progressbar]");
  window.seen = [];
  new MutationObserver(() => {
    const value = bar.getAttribute("aria-valuenow");
    if (value !== null && Number(value) !== window.seen.at(-1)) window.seen.push(Number(value));
  }).observe(bar, { attributes: true, attributeFilter: ["aria-valuenow"] });
}
"""


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
    assert figures(page) == {
        "rows": f"{target:,}",
        "columns": "11",
        "rows with problems": "0",
        "duplicate rows": "0",
    }
    expect(card.get_by_role("img", name=f"A map of {target:,} rows")).to_be_visible()
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
    expect(page.locator("#profile .run-count")).to_have_text("5 of 5 rows")
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


def test_a_file_that_is_too_large_is_not_sent(page):
    profile(page, csv("a\n" + "1\n" * 600_000))
    expect(page.locator("#profile").get_by_role("alert")).to_contain_text(
        "This file is 1.2 MB as it would be sent, and the demo takes up to 1 MB"
    )


def test_a_file_just_within_the_limit_is_profiled(page):
    profile(page, csv("a\n" + "1\n" * 332_000))  # in JSON, a line break takes two characters
    expect(page.locator("#profile .run-count")).to_have_text("332,000 of 332,000 rows")
    expect(page.locator("#profile .run-status")).to_have_text("Done")


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
