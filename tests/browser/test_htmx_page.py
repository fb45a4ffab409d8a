"""docs/htmx.md, followed word for word with both versions of htmx, and its site in a real Chromium."""

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import LIMIT
from tests.browser.site.htmx_settings import MODULES
from tests.docs.pages import Fence, fences, text_of
from tests.support.new_project import NewProject
from tests.support.stack import Process, free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(180)  # seconds: makes a project, and starts its server

PAGE = "docs/htmx.md"
STARTED = "docs/getting-started.md"
LANGUAGES = ("python", "html", "css")
PASSWORD = {"DJANGO_SUPERUSER_PASSWORD": "password"}
#: By the version of htmx, where the page says that its files are.
FILES = {
    4: ("htmx-4/dist/htmx.min.js", "htmx-4/dist/ext/hx-sse.min.js"),
    2: ("htmx.org/dist/htmx.min.js", "htmx-ext-sse/dist/sse.min.js"),
}
SCRIPT_4 = '  <script src="{% static "hx-sse.min.js" %}"></script>\n'


class HTMXProject(NewProject):
    """The project that the two pages make."""

    def __init__(self, folder: Path, version: int) -> None:
        super().__init__(folder, "")
        self.version = version
        self.port = free_port()
        for fence in [*before(STARTED, "## Run it"), *fences(PAGE, *LANGUAGES)]:
            for name, text in fence.files.items():
                self.write(name, text)
        for name in FILES[version]:
            shutil.copy(MODULES / name, folder / "myapp/static")
        if version == 2:
            self.replace("myapp/templates/base.html", SCRIPT_4, sample("sse.min.js"))
        self.run("manage.py", "migrate", "--verbosity=0")
        self.environment |= PASSWORD
        for name in ("ann", "bob"):
            self.run("manage.py", "createsuperuser", "--noinput", "--username", name, "--email", "")

    def write(self, name: str, text: str) -> None:
        """Append to settings.py; write the other files, of which the pages have the whole text."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if name == "mysite/settings.py" else "w") as opened:
            opened.write(text)

    def replace(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    @contextmanager
    def changed(self, *names: str) -> Iterator[None]:
        """Undo what is done to these files meanwhile. After `replace` in Python, call `restart`."""
        before = {name: (self.folder / name).read_text() for name in names}
        try:
            yield
        finally:
            for name, text in before.items():
                (self.folder / name).write_text(text)
            self.restart()

    def restart(self) -> None:
        self.server.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def start(self) -> None:
        command = [sys.executable, "manage.py", "runserver", "--noreload", str(self.port)]
        self.server = Process("runserver", command, self.environment, self.folder / "server.log", self.folder)
        wait_for(self.answers)  # `runserver` says that it serves before it does

    def answers(self) -> bool:
        assert self.server.popen.poll() is None, self.server.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def before(page: str, heading: str) -> list[Fence]:
    line = text_of(page).splitlines().index(heading) + 1
    return [fence for fence in fences(page, *LANGUAGES) if fence.line < line]


def sample(part: str) -> str:
    """The page's only block of HTML that is no file and has this part."""
    (fence,) = [fence for fence in fences(PAGE, "html") if not fence.files and part in fence.code]
    return fence.code


@pytest.fixture(scope="module", params=FILES, ids=lambda version: f"htmx{version}")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HTMXProject]:
    with HTMXProject(tmp_path_factory.mktemp("project"), request.param) as project:
        yield project


@pytest.fixture
def page(project: HTMXProject, chromium: Browser) -> Iterator[Page]:
    """A page of its own browser profile; a problem in its console fails the test."""
    problems: list[str] = []
    page = open_page(chromium, project)
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.context.close()
    assert problems == []


def open_page(chromium: Browser, project: HTMXProject, user: str = "ann") -> Page:
    """The site's first page, with that user logged in."""
    page = chromium.new_context().new_page()
    page.set_default_timeout(LIMIT)
    page.goto(project.url)
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(PASSWORD["DJANGO_SUPERUSER_PASSWORD"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Your last runs")).to_be_visible()
    return page


def count(page: Page, seconds: int) -> None:
    page.get_by_label("Seconds").fill(str(seconds))
    page.get_by_role("button", name="Count").click()


def test_a_run_is_started_followed_and_listed(page: Page) -> None:
    count(page, 2)
    expect(page.get_by_role("status")).to_have_text("Succeeded")
    expect(page.locator(".taskapi-message")).to_have_text(["1 of 2 seconds", "2 of 2 seconds"])
    expect(page.get_by_text("2 of 2", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page.get_by_text(": succeeded")).not_to_have_count(0)  # the list, which the template of `count` loads
    page.get_by_role("link", name="Back to the form").click()
    expect(page.get_by_role("listitem").first).to_contain_text("succeeded")


def test_a_run_is_shown_again_after_a_reload_and_can_be_cancelled(page: Page) -> None:
    count(page, 600)
    first = page.get_by_text("1 of 600 seconds", exact=True)
    expect(first).to_be_visible()
    page.reload()
    expect(first).to_have_count(1)
    expect(page.get_by_text("2 of 600 seconds", exact=True)).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_another_user_finds_no_run_and_cancels_none(page: Page, project: HTMXProject, chromium: Browser) -> None:
    count(page, 600)
    expect(page.get_by_text("1 of 600 seconds", exact=True)).to_be_visible()
    other = open_page(chromium, project, "bob")
    assert other.goto(page.url).status == 404
    assert other.context.request.post(f"{page.url}cancel/").status == 403, "without a CSRF token"
    other.goto(project.url)
    token = other.locator("[name=csrfmiddlewaretoken]").input_value()
    assert other.context.request.post(f"{page.url}cancel/", headers={"X-CSRFToken": token}).status == 404
    other.context.close()
    expect(page.get_by_role("status")).to_contain_text("Running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled")


def test_a_part_of_ones_own_follows_a_run(page: Page, project: HTMXProject) -> None:
    own = sample("<ol id=")
    if project.version == 2:
        own = own.replace(own.splitlines(keepends=True)[0], sample('hx-ext="sse"'))
    with project.changed("myapp/templates/follow.html"):
        project.write("myapp/templates/follow.html", own)
        project.restart()
        count(page, 1)
        expect(page.get_by_role("status")).to_have_text("Succeeded")
        expect(page.locator(".taskapi-message")).to_have_text(["1 of 1 seconds"])


def test_a_run_is_started_in_place(page: Page, project: HTMXProject) -> None:
    form, place = sample('hx-target="#run"').splitlines(keepends=True)
    (started,) = [fence.code for fence in fences(PAGE, "python") if "def started" in fence.code]
    (answer,) = [line for line in started.splitlines(keepends=True) if "return" in line]
    with project.changed("myapp/templates/home.html", "myapp/views.py"):
        project.replace("myapp/templates/home.html", '<form method="post">', f"{place}{form.partition('…')[0]}")
        project.replace("myapp/views.py", '        return redirect("show", run.uuid)\n', f"    {answer}")
        project.restart()
        page.goto(project.url)
        count(page, 1)
        expect(page.get_by_role("status")).to_have_text("Succeeded")
        assert page.url == project.url
