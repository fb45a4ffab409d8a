"""docs/testing.md, followed word for word: its tests pass in a new project, with `manage.py test` and with pytest."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, fences
from tests.support.databases import Databases
from tests.support.new_project import LIMIT, NewProject

PAGE = "docs/testing.md"
PYTEST = ("-m", "pytest", "-p", "no:asyncio", "--ds=mysite.settings")  # a new project has no pytest-asyncio
FIVE = 5  # "Five tests that every project writes"

SETTINGS = """
INSTALLED_APPS += ["taskapi", "myapp"]
TASK_API_BACKGROUND_TASKS = ["myapp.tasks.AddUsers"]
TASK_API_REDIS_URL = "redis://127.0.0.1:1/0"
"""

# The server's thread shares the connection of the test, because the database is in memory.
LIVE = """
import json
from urllib.request import Request, urlopen

from django.test import LiveServerTestCase

from taskapi.testing import worker


class LiveTest(LiveServerTestCase):
    def ask(self, path, **body):
        data = json.dumps(body).encode() if body else None
        request = Request(self.live_server_url + path, data, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            return json.load(answer)

    def test_a_browser_starts_it(self):
        for name in ("bob", "eve"):  # what one block leaves behind would hold up the next
            with worker() as working:
                run = self.ask("/tasks/", task="add-users", inputs={"names": [name]})
                working.join()
                self.assertEqual(self.ask(f"/tasks/{run['uuid']}/")["outputs"], {"added": 1})
            self.assertEqual(self.ask(f"/tasks/{run['uuid']}/")["status"], "succeeded")
"""

# The async ORM has a thread of its own here, whose connection outlives each test.
ASYNC = """
import pytest
from django.contrib.auth.models import User

from myapp.tasks import AddUsers
from taskapi.testing import arun_task, worker


@pytest.mark.parametrize("name", ["bob", "eve"])
async def test_the_fixture(taskapi_worker, name):
    info = await AddUsers.astart({"names": [name]})
    assert await info.aresult(timeout=30) == {"added": 1}
    assert [user.username async for user in User.objects.all()] == [name]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["bob", "eve"])
async def test_the_block(name):
    await User.objects.acreate(username="ann")
    async with worker():
        await AddUsers.astart({"names": [name]})
    assert {user.username async for user in User.objects.all()} == {"ann", name}


@pytest.mark.django_db(transaction=True)
async def test_arun_task():
    assert (await arun_task(AddUsers, {"names": ["bob"]})).outputs == {"added": 1}
    assert await User.objects.acount() == 1
"""
ASYNCIO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")

# Errors after which PostgreSQL takes no more statements in the transaction.
BROKEN = """
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase

from taskapi.tasks import Task
from taskapi.testing import run_task


class Breaks(Task):
    def run(self):
        self.add_message("before")
        connection.cursor().execute("SELECT nothing FROM nowhere")


class GoesOn(Task):
    def run(self):
        self.add_message("before")
        try:
            connection.cursor().execute("SELECT nothing FROM nowhere")
        except Exception:
            self.add_message("after")


class AsyncBreaks(Task):
    async def run(self):
        await User.objects.acreate(username="bob")
        await User.objects.acreate(username="ann")


class BrokenTest(TestCase):
    def test_the_test_goes_on(self):
        User.objects.create(username="ann")
        for task, messages in ((Breaks, ["before"]), (GoesOn, ["before", "after"]), (AsyncBreaks, [])):
            with self.subTest(task.__name__), self.assertLogs("taskapi"):
                run = run_task(task)
                self.assertEqual(run.messages, messages)
                self.assertEqual(run.status, "succeeded" if task is GoesOn else "failed")
                self.assertEqual(User.objects.count(), 1)
"""


def write_page(project: NewProject) -> None:
    """Write the files of the page, and each other sample with a test class as a file of tests."""
    others = 0
    for fence in fences(PAGE, "python"):
        for name, text in fence.files.items():
            (project.folder / name).write_text(text)
        if not fence.files and "Test(" in fence.code:
            others += 1
            (project.folder / f"myapp/test_sample_{others}.py").write_text(fence.code)


@pytest.fixture
def project(tmp_path: Path) -> NewProject:
    project = NewProject(tmp_path, SETTINGS)
    write_page(project)
    return project


def passed(output: str) -> int:
    found = re.search(r"Ran (\d+) tests?|(\d+) passed", output)
    assert found, output
    return int(found[1] or found[2])


@pytest.mark.timeout(2 * LIMIT)
def test_the_tests_of_the_page_pass(project: NewProject) -> None:
    """Each in a new process, with SQLite in memory, as a new project has it."""
    classes = project.run("-W", "error::ResourceWarning", "manage.py", "test", "-v", "2")
    assert passed(classes) >= 2 * FIVE, "the five, and those of the other samples"
    assert passed(project.run("manage.py", "test", "myapp.tests")) == FIVE
    functions = project.run(*PYTEST, "myapp/test_with_pytest.py")
    assert passed(functions) == FIVE
    all_of_them = project.run(*PYTEST, "-W", "error", "-o", "python_files=tests.py test_*.py")
    assert passed(all_of_them) >= 3 * FIVE
    assert project.connections() == ""


@pytest.mark.timeout(2 * LIMIT)
def test_they_pass_on_postgres(tmp_path: Path, databases: Databases) -> None:
    """There an error ends a transaction, and a connection that is left open keeps the test database."""
    project = NewProject(tmp_path, f"{SETTINGS}DATABASES = {{'default': {databases.new('postgres')!r}}}\n")
    write_page(project)
    (tmp_path / "myapp/test_broken.py").write_text(BROKEN)
    output = project.run("-W", "error::ResourceWarning", "manage.py", "test", "-v", "2")
    assert passed(output) > 2 * FIVE
    assert "Destroying test database" in output
    assert "ResourceWarning" not in output, "a connection was left open"


def test_a_live_server_in_memory(project: NewProject) -> None:
    (project.folder / "myapp/test_live.py").write_text(LIVE)
    assert passed(project.run("-W", "error", "manage.py", "test", "myapp.test_live")) == 1


def test_async_functions_with_the_database_in_memory(project: NewProject) -> None:
    (project.folder / "myapp/test_async.py").write_text(ASYNC)
    command = ("-m", "pytest", "--ds=mysite.settings", "-W", "error", *ASYNCIO, "myapp/test_async.py")
    assert passed(project.run(*command)) == 5


def test_the_audit_sees_connections(project: NewProject) -> None:
    """Else the test above could not fail."""
    script = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"
    project.run("-c", script)
    assert "127.0.0.1" in project.connections()


def test_the_plugin_of_pytest_imports_nothing_of_django() -> None:
    script = "import sys, json, taskapi.pytest_plugin; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = json.loads(output)
    assert [name for name in loaded if name.split(".")[0] in ("django", "channels", "arq", "asgiref")] == []
    assert [name for name in loaded if name.startswith("taskapi")] == ["taskapi", "taskapi.pytest_plugin"]
