"""docs/files.md, followed word for word: its recipe is short, and works in a new project."""

import json
from collections.abc import Iterator

import pytest

from tests.docs.pages import fences
from tests.support.new_project import NewProject

PAGE = "docs/files.md"
RECIPE = ("myapp/models.py", "myapp/tasks.py", "mysite/settings.py")
MOST_LINES = 40

SETTINGS = """
INSTALLED_APPS += ["taskapi", "rest_framework", "myapp"]
ROOT_URLCONF = "mysite.api_urls"
TASK_API_REDIS_URL = "redis://127.0.0.1:1/0"
TASK_API_BACKEND = "taskapi.backends.immediate.ImmediateBackend"
"""
URLS = """
from django.urls import include, path

urlpatterns = [path("", include("taskapi.urls"))]
"""

# What a client does, in a process of its own.
CALLS = """
import json

from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.test import Client
from myapp.models import Person
from taskapi.models import TaskInfo

client = Client(HTTP_HOST="localhost")
client.force_login(User.objects.create_user("ann"))
text = "\\ufeffemail,name\\nann@example.com,Ann\\nnobody,Bob\\nann@example.com,Ann again\\nzoe@example.com,Zoë\\n"
given = client.post("/tasks/uploads/", {"file": ContentFile(text.encode(), "people.csv")}).json()
call = {"task": "import-people", "inputs": {"file": {"upload": given["upload"]}}}
started = client.post("/tasks/", json.dumps(call), content_type="application/json")
run = client.get(started["Location"]).json()
report = client.get(run["outputs"]["report"]["url"])
run["report"] = b"".join(report.streaming_content).decode()
run["people"] = list(Person.objects.exclude(name="Bob").order_by("email").values_list("email", "name"))
run["runs"] = TaskInfo.objects.count()
print(json.dumps(run))
"""

EXPORT = """
from myapp.exports import ExportPeople
from myapp.models import Person
from taskapi.testing import run_task

Person.objects.create(email="bob@example.com", name="Bob")
run = run_task(ExportPeople)
assert (run.progress, run.target) == (Person.objects.count(), Person.objects.count()), run
with run.info.files.get().open() as file:
    print(file.read().decode())
"""


def files_of_the_page() -> list[tuple[str, str]]:
    return [item for fence in fences(PAGE, "python") for item in fence.files.items()]


def recipe() -> dict[str, str]:
    """The first text of each of its files."""
    shown = files_of_the_page()
    return {name: next(text for shown_name, text in shown if shown_name == name) for name in RECIPE}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewProject]:
    folder = tmp_path_factory.mktemp("files_page")
    found = NewProject(folder, SETTINGS + recipe()["mysite/settings.py"])
    for name, text in files_of_the_page():
        if name != "mysite/settings.py":
            (folder / name).write_text(text)
    (folder / "mysite/api_urls.py").write_text(URLS)
    found.run("manage.py", "makemigrations", "myapp")
    found.run("manage.py", "migrate", "--verbosity=0")
    return found


def test_every_python_sample_is_a_file_that_is_tried() -> None:
    assert all(fence.files for fence in fences(PAGE, "python"))


def test_the_recipe_is_short() -> None:
    lines = [line for text in recipe().values() for line in text.splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


@pytest.mark.timeout(180)
def test_the_recipe_imports_and_reports(project: NewProject) -> None:
    run = json.loads(project.run("manage.py", "shell", "--verbosity=0", "-c", CALLS).splitlines()[-1])
    assert run["status"] == "succeeded", run
    assert run["outputs"]["imported"] == 2
    assert run["people"] == [["ann@example.com", "Ann"], ["zoe@example.com", "Zoë"]]
    assert run["report"] == (
        "nobody,Bob,Enter a valid email address.\r\n"
        "ann@example.com,Ann again,Person with this Email already exists.\r\n"
    )
    assert run["progress"] == run["target"]


@pytest.mark.timeout(180)
def test_the_test_of_the_page_passes(project: NewProject) -> None:
    assert "OK" in project.run("manage.py", "test")


@pytest.mark.timeout(180)
def test_the_export_gives_everybody(project: NewProject) -> None:
    assert "bob@example.com,Bob" in project.run("manage.py", "shell", "--verbosity=0", "-c", EXPORT)


def later_settings() -> list[str]:
    return [text for name, text in files_of_the_page() if name == "mysite/settings.py"][1:]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(len(later_settings())))
def test_the_settings_of_the_page_pass_the_checks(number: int, project: NewProject) -> None:
    text = f"from mysite.settings import *\n{later_settings()[number]}"
    (project.folder / f"mysite/settings_{number}.py").write_text(text)
    project.run("manage.py", "check", "--fail-level=WARNING", f"--settings=mysite.settings_{number}")
