"""The promises of docs/javascript.md to a page that is left, that detaches, that has two scripts, or that is busy."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.proxy import BAD_GATEWAY
from tests.browser.recording import Recording
from tests.browser.test_client import stop_clock
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser

LATENCY = 0.05  # seconds, each way

# What a page does right after it starts a run
DEPARTURES = {
    "location": "location.href = '/elsewhere'",
    "replace": "location.replace('/elsewhere')",
    "reload": "location.reload()",
    "link": "const link = document.createElement('a'); link.href = '/elsewhere'; link.click()",
    "form": """
        const form = document.createElement('form');
        form.action = '/elsewhere';
        document.body.append(form);
        form.submit();
    """,
}


def leaves(page: Page, what: str, argument: object = None) -> None:
    """Let the page do `what` and go away; return when it has gone."""
    with page.expect_navigation():
        page.evaluate(f"argument => {{ {what} }}", argument)


def check_started_once(marks: Path, site, key: str) -> None:
    """Wait until the run of `key` is executed, and check that the same request starts no other run."""
    wait_for(marks.exists)
    order = {"task": "mark", "inputs": {"file": str(marks)}}
    response = httpx.post(f"{site.url}/tasks/", json=order, headers={"Idempotency-Key": key})
    assert response.status_code == httpx.codes.OK, "expected 200: a run with this key exists"
    assert site.ended(response.json()["uuid"])["status"] == "succeeded"
    assert marks.read_text().split() == [response.json()["uuid"]]


@pytest.mark.parametrize("departure", DEPARTURES)
def test_a_run_that_is_asked_for_as_the_page_goes_is_started_once(recording, site, proxy, tmp_path, departure):
    proxy.delay = LATENCY
    proxy.upgrades = "swallowed"  # the page is left before its socket opens, also on a fast machine
    marks = tmp_path / "marks"
    run = "TaskAPI.run('mark', { file: argument }, { idempotencyKey: 'a key' + argument });"
    leaves(recording.page, run + DEPARTURES[departure], str(marks))
    check_started_once(marks, site, f"a key{marks}")


def test_a_run_that_waits_for_its_next_try_is_handed_over_as_the_page_goes(recording, site, proxy, tmp_path):
    page = recording.page
    page.clock.install()
    page.evaluate("TaskAPI.options.transport = 'polling'")
    marks = tmp_path / "marks"
    proxy.replace(BAD_GATEWAY)
    page.evaluate("file => { TaskAPI.run('mark', { file }, { idempotencyKey: 'retry' + file }) }", str(marks))
    wait_for(lambda: "POST /tasks/ HTTP/1.1" in proxy.requests)
    stop_clock(page)
    proxy.replace_nothing()
    leaves(page, "location.href = '/elsewhere'")
    check_started_once(marks, site, f"retry{marks}")


@pytest.mark.parametrize("event", ["beforeunload", "pagehide", "visibilitychange", "unload"])
def test_a_run_that_is_asked_for_while_the_page_goes_is_started_once(recording, site, proxy, tmp_path, event):
    proxy.upgrades = "swallowed"
    marks = tmp_path / "marks"
    run = "TaskAPI.run('mark', { file: argument }, { idempotencyKey: 'late' + argument })"
    what = f"addEventListener('{event}', () => {run}); setTimeout(() => {{ location.href = '/elsewhere' }})"
    leaves(recording.page, what, str(marks))
    check_started_once(marks, site, f"late{marks}")


def test_what_is_asked_for_is_handed_over_as_the_page_is_hidden_and_the_page_hears_of_it(
    untouched_chromium: Browser, site, proxy, tmp_path
):
    context = untouched_chromium.contexts[0]
    page = context.new_page()
    page.clock.install()
    page.goto(proxy.url)
    proxy.upgrades = "swallowed"
    marks = tmp_path / "marks"
    stop_clock(page)
    page.evaluate(
        "file => { window.handle = TaskAPI.run('mark', { file }, { idempotencyKey: 'hidden' + file }) }", str(marks)
    )
    front = context.new_page()
    check_started_once(marks, site, f"hidden{marks}")
    page.clock.resume()
    assert page.evaluate("handle.then((task) => task.uuid)") == marks.read_text().strip()
    page.close()
    front.close()


def test_a_run_that_is_to_be_cancelled_as_the_page_goes_is_cancelled(recording, site, proxy):
    page = recording.page
    page.clock.install()
    page.evaluate("TaskAPI.options.transport = 'polling'")
    uuid = recording.start()
    proxy.replace(BAD_GATEWAY, "/cancel/")
    page.evaluate("() => { handles.run.cancel() }")
    wait_for(lambda: any("/cancel/" in line for line in proxy.requests))
    stop_clock(page)
    proxy.replace_nothing()
    leaves(page, "location.href = '/elsewhere'")
    assert site.ended(uuid)["status"] == "cancelled"


@pytest.mark.parametrize("transport", ["auto", "polling"])
def test_a_page_that_comes_back_from_the_cache_goes_on_with_its_run(
    untouched_chromium: Browser, site, proxy, tmp_path, transport
):
    page = untouched_chromium.contexts[0].new_page()
    with Recording(page, site, proxy.url, tmp_path) as recording:
        page.evaluate("transport => Object.assign(TaskAPI.options, { transport, pollInterval: 50 })", transport)
        uuid = recording.start()
        recording.hears()
        comes_and_goes(page, lambda: site.says_more(uuid))
        recording.catches_up(uuid)
        recording.let_end("run")
        recording.check(uuid)


def test_a_page_that_comes_back_from_the_cache_finds_the_run_that_it_left_behind(
    untouched_chromium: Browser, site, proxy, tmp_path
):
    page = untouched_chromium.contexts[0].new_page()
    page.goto(proxy.url)
    proxy.upgrades = "swallowed"
    marks = tmp_path / "marks"
    page.evaluate(
        "file => { window.handle = TaskAPI.run('mark', { file }, { idempotencyKey: 'back' + file }) }", str(marks)
    )
    comes_and_goes(page, lambda: check_started_once(marks, site, f"back{marks}"))
    proxy.upgrades = "passed"
    assert page.evaluate("handle.then((task) => task.uuid)") == marks.read_text().strip()
    page.close()


def comes_and_goes(page: Page, meanwhile: Callable[[], None]) -> None:
    """Leave the page, and go back to it in the browser's cache."""
    page.evaluate("addEventListener('pageshow', (event) => { window.kept = event.persisted })")
    leaves(page, "setTimeout(() => { location.href = '/elsewhere' })")
    meanwhile()
    page.evaluate("void setTimeout(() => history.back())")
    page.wait_for_function("window.kept")


@pytest.mark.parametrize("transport", ["auto", "polling"])
def test_a_component_that_is_mounted_five_times_leaves_nothing_behind(recording, site, proxy, transport):
    page = recording.page
    page.clock.install()
    page.evaluate("transport => Object.assign(TaskAPI.options, { transport, pollInterval: 50 })", transport)
    uuid = recording.start()
    mounts = """async (uuid) => {
        for (let mounts = 0; mounts < 5; mounts += 1) {
            const controller = new AbortController();
            const handle = TaskAPI.attach(uuid, { signal: controller.signal, onStatus: () => { window.told += 1 } });
            await handle.uuid;
            if (mounts % 2) controller.abort();
            else handle.detach();
        }
        handles.run.detach();
        window.told = 0;
    }"""
    page.evaluate(mounts, uuid)
    told = len(recording.told()["messages"])
    site.says_more(uuid)
    requests = len(proxy.requests)
    page.clock.fast_forward(31_000)  # milliseconds: longer than an idle socket is kept
    wait_for(lambda: not proxy.websockets)
    site.says_more(uuid)
    assert (page.evaluate("told"), len(recording.told()["messages"])) == (0, told)
    assert len(proxy.requests) == requests
    recording.let_end("run")
    assert site.ended(uuid)["status"] == "succeeded"


SCRIPT = "/static/django-task-api.min.js"


def test_a_script_that_is_on_the_page_twice_is_one(recording, proxy):
    page = recording.page
    page.evaluate("() => { window.first = TaskAPI; TaskAPI.options.pollInterval = 123 }")
    uuid = recording.start()
    page.add_script_tag(url=SCRIPT)
    assert page.evaluate("TaskAPI === first && TaskAPI.options.pollInterval") == 123
    refusal = "TaskAPI.attach('no uuid').catch((error) => error instanceof first.RequestError)"
    assert page.evaluate(refusal)
    assert page.evaluate("uuid => TaskAPI.attach(uuid).uuid", uuid) == uuid
    assert proxy.handshakes == 1
    recording.let_end("run")
    recording.check(uuid)


def test_onstatus_is_called_once_in_a_frame_of_the_screen_at_most(recording, site):
    """Send as many messages as a page can take, and count its animation frames."""
    page = recording.page
    frames = """(count) => {
        window.calls = [];
        window.frames = [0];
        const frame = () => { frames.push(0); requestAnimationFrame(frame) };
        requestAnimationFrame(frame);
        window.heard = 0;
        window.outcome = TaskAPI.run("chatter", { count }, (task) => {
            frames[frames.length - 1] += 1;
            calls.push([task.status, task.messages.length]);
        });
        outcome.on("message", () => { heard += 1 });
        outcome.then(() => { window.before = frames.slice(0, -1) }); // the last state may come second in the last one
    }"""
    page.evaluate(frames, 5_000)
    assert page.evaluate("outcome.then((task) => task.messages.length)") == 5_000
    calls = page.evaluate("calls")
    assert page.evaluate("heard") == 5_000
    assert [known for _, known in calls] == sorted(known for _, known in calls)
    assert calls[-1] == ["succeeded", 5_000]
    assert max(page.evaluate("before")) == 1
    assert len(calls) < 1_000


def test_a_page_that_is_busy_for_five_seconds_is_not_polled_for_that(recording, proxy):
    proxy.delay = LATENCY
    busy = "const end = performance.now() + 5_000; while (performance.now() < end);"
    recording.page.evaluate(
        f"inputs => {{ start('run', 'talk', inputs); {busy} }}", {"gate": str(recording.gate("run"))}
    )
    uuid = recording.uuid()
    recording.hears()
    assert recording.told()["transports"] == ["websocket"]
    assert not any(line.startswith("POST") for line in proxy.requests)
    recording.let_end("run")
    recording.check(uuid)


def test_an_address_with_a_password_is_no_hindrance(chromium: Browser, proxy, site, tmp_path):
    page = chromium.new_page()
    with Recording(page, site, proxy.url.replace("://", "://user:pass@"), tmp_path) as recording:
        page.evaluate("TaskAPI.options.transport = 'polling'")
        uuid = recording.start()
        recording.let_end("run")
        recording.check(uuid)
    page.close()
