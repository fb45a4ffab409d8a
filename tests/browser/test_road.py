"""The promises of docs/javascript.md if the road to the server is slow, cut, blocked, or answered by strangers."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.proxy import LOGIN_PAGE, PORTAL, RELOADING, STRANGERS, Proxy
from tests.browser.recording import Recording, Site
from tests.support.databases import Databases
from tests.support.stack import free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)  # seconds: the first test starts the servers and the browser

MIB = 1_048_576


class RoadSite(Site):
    """The servers of `tests/browser/site/road_settings.py`."""

    csrf = ""  # where the page has its token

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "DJANGO_SETTINGS_MODULE": "tests.browser.site.road_settings",
            "SITE_CSRF": self.csrf,
        }

    @contextmanager
    def other_web(self, csrf: str) -> Iterator[str]:
        """The address of another web server, whose CSRF token is in that place."""
        self.csrf = csrf
        web = self._start(csrf, "daphne", "--port", "0", "tests.project.asgi:application")
        self.csrf = ""
        try:
            yield f"http://127.0.0.1:{web.wait_for_output(r'Listening on TCP address 127.0.0.1:([0-9]+)')[1]}/"
        finally:
            self.stop(csrf)


@pytest.fixture(scope="module")
def site(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadSite]:
    with RoadSite(databases.new("sqlite"), tmp_path_factory.mktemp("road")) as site:
        yield site


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page with its own cookies."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def recording(page: Page, site: RoadSite, proxy: Proxy, tmp_path: Path) -> Iterator[Recording]:
    with Recording(page, site, proxy.url, tmp_path) as recording:
        yield recording


def options(page: Page, **options: object) -> None:
    page.evaluate("options => Object.assign(TaskAPI.options, options)", options)


def outcome(page: Page, task: str, inputs: dict[str, object], limit: int = 60_000) -> dict[str, object]:
    """How a run of the page ended; large texts as their lengths."""
    return page.evaluate(
        """async ([task, inputs, limit]) => {
          const transports = [];
          const handle = TaskAPI.run(task, inputs);
          handle.on("transport", (event) => transports.push(event.transport));
          const late = new Promise((_, reject) => setTimeout(reject, limit, new Error("It has not settled.")));
          try {
            const run = await Promise.race([handle, late]);
            return {
              outputs: Object.fromEntries(Object.entries(run.outputs).map(([name, value]) =>
                [name, name === "text" ? value.length : value])),
              inputs: run.inputs.text?.length,
              messages: run.messages.map((message) => message.length),
              transports,
            };
          } catch (error) {
            const { name, message, status, code } = error;
            return { name, message, status, code, transports };
          }
        }""",
        [task, inputs, limit],
    )


def fetch(page: Page, path: str) -> None:
    """A request of the page itself, without the client."""
    assert page.evaluate("async (path) => (await fetch(path)).ok", path)


# P1


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"returned": 1_100_000}, {"outputs": {"text": 1_100_000}}),
        ({"text": "i" * 1_100_000}, {"inputs": 1_100_000}),
        ({"text": "i" * 1_000_000, "returned": 1_000_000}, {"inputs": 1_000_000, "outputs": {"text": 1_000_000}}),
        ({"said": 1_060_000}, {"messages": [1_060_000]}),
        ({"said": 1_060_000, "returned": 1_100_000}, {"outputs": {"text": 1_100_000}, "messages": [1_060_000]}),
    ],
    ids=["outputs", "inputs", "inputs and outputs", "a message", "a message and outputs"],
)
@pytest.mark.parametrize("transport", ["auto", "websocket"])
def test_what_fits_into_no_frame_arrives(recording, inputs, expected, transport):
    options(recording.page, transport=transport)
    found = outcome(recording.page, "large", inputs)
    assert {name: found.get(name) for name in expected} == expected, found.get("message")


def test_a_page_attaches_to_a_run_that_has_said_more_than_a_frame_takes(recording, site):
    with site.client() as client:
        body = {"task": "large", "inputs": {"lines": 12_000, "returned": 1_100_000}}
        uuid = client.post("/tasks/", json=body).json()["uuid"]
    site.ended(uuid)
    said, returned = recording.page.evaluate(
        """async (uuid) => {
          const run = await TaskAPI.attach(uuid);
          return [run.messages.map((message) => message.split(" ")[1]), run.outputs.text.length];
        }""",
        uuid,
    )
    assert said == [str(number) for number in range(12_000)]
    assert returned == 1_100_000


def test_a_large_start_harms_no_neighbour(recording, proxy):
    recording.start("neighbour")
    recording.hears(name="neighbour")
    outcome(recording.page, "large", {"text": "i" * 1_100_000, "returned": 1_100_000})
    assert proxy.handshakes == 1
    recording.let_end("neighbour")
    recording.check(recording.uuid("neighbour"), name="neighbour")
    assert recording.told("neighbour")["transports"] == ["websocket"]


# P2


def test_a_run_after_a_login_in_another_tab_belongs_to_the_new_user(recording, proxy):
    page = recording.page
    assert outcome(page, "who_am_i", {})["outputs"] == {"user": None}
    other = page.context.new_page()
    for name in ("ann", "bob"):
        other.goto(f"{proxy.url}login/{name}/")
        assert outcome(page, "who_am_i", {})["outputs"] == {"user": name}
    fetch(page, "login/cleo/")
    assert outcome(page, "who_am_i", {})["outputs"] == {"user": "cleo"}
    assert proxy.handshakes == 4


def test_a_run_that_goes_on_during_a_login_is_followed_to_its_end(recording):
    uuid = recording.start()
    recording.hears()
    fetch(recording.page, "login/ann/")
    recording.start("second")
    recording.hears()
    recording.hears(name="second")
    recording.let_end("run", "second")
    recording.check(uuid)
    told = recording.until(lambda told: told["outcomes"], "second")  # it is ann's: the test itself may not read it
    assert told["ends"] == ["succeeded"]
    assert recording.told()["transports"] == ["websocket"]


def test_a_run_after_a_logout_belongs_to_nobody(recording, site, proxy):
    page = recording.page
    fetch(page, "login/ann/")
    assert outcome(page, "who_am_i", {})["outputs"] == {"user": "ann"}
    handshakes = proxy.handshakes
    recording.start()  # keeps the socket open
    fetch(page, "logout/")
    told = recording.until(lambda told: told["outcomes"])
    assert told["ends"] == ["RequestError"]  # it is ann's
    assert proxy.handshakes > handshakes
    assert outcome(page, "who_am_i", {})["outputs"] == {"user": None}


# P3


@pytest.fixture
def polled(recording: Recording) -> Recording:
    options(recording.page, transport="polling", pollInterval=50)
    return recording


def comes(proxy: Proxy, pattern: str, count: int = 1) -> None:
    """Wait until so many requests of that kind have arrived."""
    wait_for(lambda: sum(bool(re.search(pattern, line)) for line in proxy.requests) >= count)


def test_a_run_that_is_polled_outlives_the_answers_of_strangers(polled, proxy):
    uuid = polled.start()
    for stranger in STRANGERS.values():
        polled.hears()
        proxy.requests.clear()
        proxy.replace(stranger, "GET /tasks/")
        comes(proxy, "GET /tasks/", 2)
        proxy.replace_nothing()
    polled.hears()
    polled.let_end("run")
    polled.check(uuid)


def test_a_run_on_a_socket_outlives_a_stranger_in_the_place_of_the_server(recording, proxy):
    uuid = recording.start()
    recording.hears()
    proxy.replace(PORTAL)
    proxy.requests.clear()
    proxy.cut()
    comes(proxy, "GET /tasks/", 2)
    proxy.replace_nothing()
    recording.hears()
    recording.let_end("run")
    recording.check(uuid)


@pytest.mark.parametrize("stranger", [PORTAL, RELOADING, LOGIN_PAGE], ids=["portal", "reloading", "login"])
def test_a_request_to_cancel_outlives_the_answers_of_strangers(polled, proxy, stranger):
    uuid = polled.start()
    polled.hears()
    proxy.replace(stranger, "POST /tasks/.*/cancel/")
    proxy.requests.clear()
    polled.page.evaluate("() => { window.cancelling = handles.run.cancel(); }")
    comes(proxy, "POST", 2)
    proxy.replace_nothing()
    polled.page.evaluate("() => window.cancelling")  # resolves
    polled.check(uuid, "TaskCancelled")


def test_a_start_that_strangers_answer_is_made_once_when_they_are_gone(polled, proxy):
    proxy.replace(RELOADING, "POST /tasks/")
    polled.ask_for()
    comes(proxy, "POST", 2)
    proxy.replace_nothing()
    uuid = polled.uuid()
    polled.let_end("run")
    polled.check(uuid)


def test_a_start_that_strangers_keep_answering_is_refused_with_what_came(polled, proxy):
    proxy.replace(RELOADING, "POST /tasks/")
    error = outcome(polled.page, "talk", {"gate": "none"})
    assert (error["name"], error["status"], error["code"]) == ("RequestError", 404, None)
    assert "404 page not found" in error["message"]
    assert sum("POST" in line for line in proxy.requests) == 5


# P4


def test_a_large_upload_takes_its_time(recording, proxy):
    page = recording.page
    page.clock.install()
    options(page, transport="polling")
    proxy.rate = 400_000
    page.evaluate("inputs => { window.handle = TaskAPI.run('large', inputs); }", {"text": "i" * 2_200_000})
    comes(proxy, "POST")
    for _ in range(7):
        page.clock.fast_forward(30_000)  # milliseconds: with 210 s in all, time enough to send 2.2 MB
    proxy.rate = None
    assert page.evaluate("async () => (await window.handle).inputs.text.length") == 2_200_000
    assert sum("POST" in line for line in proxy.requests) == 1


def test_a_large_answer_takes_its_time(recording, site, proxy):
    page = recording.page
    with site.client() as client:
        uuid = client.post("/tasks/", json={"task": "large", "inputs": {"returned": 2_100_000}}).json()["uuid"]
    site.ended(uuid)
    page.clock.install()
    options(page, transport="polling")
    proxy.rate = 500_000
    page.evaluate("uuid => { window.length = TaskAPI.attach(uuid).then((run) => run.outputs.text.length); }", uuid)
    comes(proxy, "GET /tasks/")
    for _ in range(8):
        page.wait_for_timeout(400)  # real milliseconds, in which bytes arrive
        page.clock.fast_forward(20_000)
    assert page.evaluate("() => window.length") == 2_100_000
    assert sum("GET /tasks/" in line for line in proxy.requests) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("transport", ["polling", "auto"])
def test_everything_ends_at_30_kilobytes_a_second(page, site, proxy, tmp_path, transport):
    with Recording(page, site, proxy.url, tmp_path) as recording:
        page.set_default_timeout(500_000)
        options(page, transport=transport)
        proxy.rate = 30_000
        found = outcome(page, "large", {"text": "i" * 900_000, "returned": 1_000_000, "lines": 500}, 500_000)
        assert found.get("inputs") == 900_000, found
        assert found["outputs"] == {"text": 1_000_000}
        assert len(found["messages"]) == 500
        assert recording.errors == []


def test_a_line_that_stalls_is_replaced_and_nothing_is_lost(recording, proxy):
    page = recording.page
    page.clock.install()
    uuid = recording.start()
    recording.hears()
    proxy.stalled = "both"
    for _ in range(3):
        page.clock.fast_forward(11_000)
        page.wait_for_timeout(100)
    proxy.stalled = None
    page.clock.fast_forward(5_000)
    recording.catches_up(uuid)
    recording.let_end("run")
    recording.check(uuid)


def test_a_run_over_a_line_with_a_long_delay_loses_nothing(recording, proxy):
    proxy.delay = 0.4  # seconds each way
    uuid = recording.start()
    recording.hears()
    proxy.cut()
    recording.hears()
    recording.let_end("run")
    recording.check(uuid)


# P5


def errors_in_the_end(page: Page) -> dict[str, object]:
    """The errors of a run and of its cancellation, on a page whose clock is advanced."""
    page.evaluate(
        """() => {
          const told = ({ name, message, status, code }) => ({ name, message, status, code });
          const handle = TaskAPI.run("who_am_i", {});
          window.told = null;
          Promise.all([handle.catch(told), handle.cancel().catch(told)]).then((errors) => { window.told = errors; });
        }"""
    )

    def look() -> list[dict[str, object]] | None:
        page.clock.fast_forward(5_000)
        return page.evaluate("window.told")

    error, of_cancel = wait_for(look)
    assert error == of_cancel
    return error


@pytest.mark.parametrize("transport", ["auto", "polling"])
def test_another_origin_without_cors_is_refused_with_what_to_look_at(recording, site, proxy, transport):
    proxy.upgrades = "refused"
    page = recording.page
    page.clock.install()
    page.goto(site.url)  # so that the proxy is another origin
    options(page, baseURL=f"{proxy.url}tasks/", transport=transport)
    assert 'TaskAPI.options.corsMode = "cors"' in str(errors_in_the_end(page)["message"])
    options(page, corsMode="cors")
    error = errors_in_the_end(page)
    assert (error["name"], error["status"], error["code"]) == ("RequestError", 0, "unreachable")
    assert "Idempotency-Key" in str(error["message"])
    assert sum("OPTIONS" in line for line in proxy.requests) == 6


@pytest.mark.parametrize("transport", ["auto", "polling"])
def test_another_origin_with_the_documented_cors_headers_works(recording, site, proxy, transport):
    proxy.upgrades = "refused"
    page = recording.page
    page.goto(site.url)
    options(page, baseURL=f"{proxy.url}cors/tasks/", transport=transport, corsMode="cors")
    assert outcome(page, "who_am_i", {})["outputs"] == {"user": None}


@pytest.mark.parametrize("transport", ["auto", "polling", "websocket"])
def test_a_port_where_nothing_listens_is_refused(recording, transport):
    page = recording.page
    page.clock.install()
    options(page, baseURL=f"http://127.0.0.1:{free_port()}/tasks/", corsMode="cors", transport=transport)
    error = errors_in_the_end(page)
    assert (error["name"], error["status"], error["code"]) == ("RequestError", 0, "unreachable")


@pytest.mark.long
@pytest.mark.parametrize("transport", ["auto", "polling", "websocket"])
def test_a_server_that_is_away_for_a_minute_loses_no_run_that_was_accepted(recording, site, transport):
    recording.page.goto(site.url)
    options(recording.page, transport=transport)
    uuid = recording.start()
    recording.hears()
    site.stop("web", signal.SIGKILL)
    recording.page.wait_for_timeout(60_000)
    site.start_web()
    recording.let_end("run")
    recording.check(uuid)


# P6


@pytest.mark.parametrize("csrf", ["sessions", "httponly"])
def test_a_token_that_no_cookie_shows_is_taken_from_the_page_or_given(page, site, csrf):
    with site.other_web(csrf) as url:
        page.goto(f"{url}login/ann/")
        for place in ("meta", "form"):
            page.goto(f"{url}token/{place}/")
            options(page, transport="polling", pollInterval=50)
            assert outcome(page, "who_am_i", {})["outputs"] == {"user": "ann"}
            cancelled = page.evaluate(
                "async () => { await TaskAPI.run('unserved', {gate: ''}).cancel(); return true; }"
            )
            assert cancelled
            page.wait_for_timeout(0)
        page.goto(f"{url}token/meta/")
        token = page.evaluate("document.querySelector('meta[name=csrf-token]').content")
        page.goto(f"{url}token/nowhere/")
        options(page, transport="polling", pollInterval=50)
        error = outcome(page, "who_am_i", {})
        assert (error["status"], error["code"]) == (403, "permission_denied")
        options(page, csrfToken=token)
        assert outcome(page, "who_am_i", {})["outputs"] == {"user": "ann"}
        page.evaluate("token => { TaskAPI.options.csrfToken = () => token; }", token)
        assert outcome(page, "who_am_i", {})["outputs"] == {"user": "ann"}


# P10


def test_a_sandboxed_frame_without_cookies_or_storage_runs_tasks(recording, proxy):
    page = recording.page
    page.evaluate(
        """(url) => {
          window.told = new Promise((resolve) => addEventListener("message", ({ data }) => resolve(data)));
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.srcdoc = `<script src="${url}static/django-task-api.min.js"></` + `script><script>
            try { document.cookie; } catch (error) { window.isBarred = true; }
            Object.assign(TaskAPI.options, { baseURL: "${url}cors/tasks/", corsMode: "cors" });
            TaskAPI.run("who_am_i", {}).then(
              (run) => parent.postMessage([window.isBarred, run.status], "*"),
              (error) => parent.postMessage([window.isBarred, String(error)], "*"),
            );
          </` + `script>`;
          document.body.append(frame);
        }""",
        proxy.url,
    )
    assert page.evaluate("() => window.told") == [True, "succeeded"]


# P11


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_session_that_ends_in_mid_run_asks_for_a_login_and_the_run_is_found_after_it(recording, transport):
    page = recording.page
    options(page, transport=transport, pollInterval=50)
    fetch(page, "login/ann/")
    uuid = recording.start()
    recording.hears()
    fetch(page, "logout/")
    recording.until(lambda told: told["outcomes"])
    error = page.evaluate("() => handles.run.catch(({ name, status, code }) => ({ name, status, code }))")
    assert error == {"name": "RequestError", "status": 404, "code": "not_authenticated"}
    fetch(page, "login/ann/")
    code = "uuid => follow('again', (...callbacks) => TaskAPI.attach(uuid, ...callbacks))"
    page.evaluate(code, uuid)
    recording.hears(name="again")
    recording.let_end("run")
    assert recording.until(lambda told: told["outcomes"], "again")["ends"] == ["succeeded"]


def test_a_run_of_somebody_else_is_not_found(recording, site):
    page = recording.page
    fetch(page, "login/ann/")
    uuid = recording.start()
    fetch(page, "login/bob/")
    code = "uuid => TaskAPI.attach(uuid).catch(({ status, code }) => [status, code])"
    assert page.evaluate(code, uuid) == [404, "not_found"]
    recording.let_end("run")
