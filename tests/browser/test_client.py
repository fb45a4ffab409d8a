"""The promises of docs/javascript.md to a page that is hidden, reloaded or left, or whose server is out of reach."""

import signal

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.recording import Recording
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: the first test starts the servers and the browser


def stop_clock(page: Page) -> None:
    """Stop the page's timers: what happens from now on has another cause."""
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 1)


def test_a_web_server_that_is_killed_costs_a_page_nothing(recording, site):
    recording.page.goto(site.url)
    uuids = {
        "chatty": recording.start("chatty", pause=0.005),
        "slow": recording.start("slow", pause=0.1),
        "async": recording.start("async", "async_talk", pause=0.02),
        "unheard": recording.start("unheard", pause=0.02),
    }
    for name in uuids:
        recording.hears(name=name)
    site.stop("web", signal.SIGKILL)
    recording.let_end("unheard")  # while no page can hear it
    site.start_web()
    for name in ("chatty", "slow", "async"):
        recording.hears(name=name)
    recording.let_end(*uuids)
    for name, uuid in uuids.items():
        run = recording.check(uuid, name=name)
        assert run["attempt"] == 1
        assert run["outputs"] == {"said": run["message_count"]}


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_a_page_that_is_online_again_connects_at_once(recording, site, proxy, noticed):
    page = recording.page
    page.clock.install()
    uuid = recording.start()
    recording.hears()
    if noticed:
        proxy.leave()
        recording.tries_again()
        page.context.set_offline(True)
    else:
        page.context.set_offline(True)  # the socket stays open, but nothing passes, not even its end
        site.says_more(uuid)
        proxy.leave()
    stop_clock(page)
    proxy.come_back()
    page.context.set_offline(False)
    recording.catches_up(uuid)
    recording.let_end("run")
    recording.check(uuid)


@pytest.mark.parametrize("frozen", [False, True], ids=["hidden", "frozen"])
def test_a_page_that_is_looked_at_again_connects_at_once(untouched_chromium: Browser, site, proxy, tmp_path, frozen):
    context = untouched_chromium.contexts[0]
    page = context.new_page()
    page.clock.install()
    with Recording(page, site, proxy.url, tmp_path) as recording:
        uuid = recording.start()
        recording.hears()
        context.new_page()  # in front of it
        wait_for(lambda: page.evaluate("document.visibilityState") == "hidden")
        lifecycle = context.new_cdp_session(page)
        stop_clock(page)  # before the page is frozen: timers that are due could not end
        if frozen:
            lifecycle.send("Page.setWebLifecycleState", {"state": "frozen"})
        proxy.cut()
        if frozen:
            lifecycle.send("Page.setWebLifecycleState", {"state": "active"})
        else:
            recording.loses_its_socket()
        page.bring_to_front()
        recording.catches_up(uuid)
        assert proxy.handshakes == 2
        recording.let_end("run")
        recording.check(uuid)


def test_a_page_that_is_loaded_anew_goes_on_with_its_run(recording):
    uuid = recording.start()
    recording.hears()
    recording.page.reload()
    recording.hears()
    recording.let_end("run")
    recording.check(uuid)


def test_leaving_the_page_cancels_nothing(recording, site, proxy):
    uuid = recording.start()
    recording.hears()
    recording.page.goto("about:blank")
    wait_for(lambda: not proxy.websockets)
    site.says_more(uuid)  # no page sees it
    recording.let_end("run")
    run = site.ended(uuid)
    assert (run["status"], run["cancel_requested"]) == ("succeeded", False)


@pytest.mark.parametrize("task", ["talk", "async_talk", "unserved"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_run_that_is_cancelled_rejects_once(recording, task, transport):
    recording.page.evaluate("transport => Object.assign(TaskAPI.options, { transport, pollInterval: 50 })", transport)
    uuid = recording.start("run", task)
    if task != "unserved":
        recording.hears()
    recording.page.evaluate("() => handles.run.cancel()")  # resolves
    run = recording.check(uuid, "TaskCancelled")
    assert (run["status"], run["cancel_requested"]) == ("cancelled", True)
    told = recording.told()
    assert told["statuses"][-1] == "cancelled"
    assert told["transports"] == [transport]


def test_a_run_is_cancelled_though_the_connection_is_away_when_it_is_asked_for(recording, proxy):
    uuid = recording.start()
    recording.hears()
    proxy.leave()
    recording.page.evaluate("() => { window.cancelling = handles.run.cancel(); }")
    proxy.come_back()
    recording.page.evaluate("() => window.cancelling")  # resolves
    recording.check(uuid, "TaskCancelled")


@pytest.mark.parametrize("upgrades", ["refused", "swallowed"])
def test_a_run_is_polled_where_no_websocket_passes_and_moves_up_when_one_does(recording, proxy, upgrades):
    page = recording.page
    page.clock.install()
    proxy.upgrades = upgrades
    recording.ask_for()
    wait_for(lambda: proxy.handshakes)
    page.clock.fast_forward(5_000)  # milliseconds: more than the limit of a handshake
    uuid = recording.uuid()
    recording.hears()
    assert recording.told()["transports"] == ["polling"]
    proxy.upgrades = "passed"
    page.clock.fast_forward(31_000)  # milliseconds: more than the longest pause between two tries
    recording.until(lambda told: told["transports"] == ["polling", "websocket"])
    recording.hears()
    recording.let_end("run")
    recording.check(uuid)
