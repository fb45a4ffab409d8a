"""The documentation and the code name the same things."""

import inspect
import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management.base import BaseCommand

import taskapi
from taskapi import access, conf, params, protocol, urls
from taskapi.management.commands.taskworker import Command as TaskWorker
from taskapi.models import TaskInfo
from taskapi.params import FieldParameter, Parameter
from taskapi.states import ErrorCode
from taskapi.tasks import Task
from tests.docs.pages import PAGES, prose, text_of

PACKAGE = Path(taskapi.__file__).parent
CODE = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))


def first_column(page: str, heading: str) -> set[str]:
    """What is in code style in the first column of the tables between this heading and the next."""
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", prose(page), re.DOTALL | re.MULTILINE)
    assert section, f"{page} has no heading {heading!r}"
    cells = re.findall(r"^\| (.*?) \|", section[1], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}


# Settings


def settings_of_the_code() -> set[str]:
    names = re.findall(r'(?:_(?:get|classes)\("|"TASK_API_)(\w+)"', (PACKAGE / "conf.py").read_text())
    return {f"TASK_API_{name}" for name in (*names, *conf.TASKS_SETTINGS)}


def test_every_setting_has_a_section_and_every_section_a_setting() -> None:
    sections = re.findall(r"^### `(TASK_API_\w+)`$", text_of("docs/settings.md"), re.MULTILINE)
    assert set(sections) == settings_of_the_code()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_a_page_names_no_setting_that_is_not_there(page: str) -> None:
    assert set(re.findall(r"TASK_API_[A-Z_]*[A-Z]", text_of(page))) <= settings_of_the_code()


def test_the_defaults_of_settings_are_those_of_the_code() -> None:
    for default in (conf.DEFAULT_BACKEND, conf.DEFAULT_REDIS_URL, str(conf.DEFAULT_EVENT_INTERVAL)):
        assert default in text_of("docs/settings.md")


def test_the_system_checks_are_those_of_the_code() -> None:
    ids = set(re.findall(r"taskapi\.[EW]\d+", CODE))
    assert first_column("docs/settings.md", "System checks") == ids


# Tasks


def test_the_attributes_of_a_task_are_those_of_the_code() -> None:
    attributes = {name for name in Task.__annotations__ if not name.startswith("_")}
    assert first_column("docs/tasks.md", "Attributes") | {"info", "run"} == attributes


def test_the_methods_of_a_task_are_those_of_the_code() -> None:
    text = text_of("docs/tasks.md")
    methods = {name for name, value in inspect.getmembers(Task, callable) if not name.startswith("_")}
    assert {name for name in methods if f"{name}(" not in text} == set()
    assert set(re.findall(r"\bself\.(\w+)", text)) <= methods | {"info"}


def test_the_keywords_of_start_are_those_of_the_code() -> None:
    keywords = first_column("docs/tasks.md", "Starting a run from Python")
    assert keywords | {"inputs="} == {f"{name}=" for name in inspect.signature(Task.start).parameters}


def test_every_parameter_is_in_its_page() -> None:
    public = [getattr(params, name) for name in params.__all__]
    types = {kind.__name__ for kind in public if inspect.isclass(kind) and issubclass(kind, Parameter)}
    types -= {Parameter.__name__, FieldParameter.__name__}  # for types of one's own
    table = {name.partition("(")[0] for name in first_column("docs/parameters.md", "Types")}
    assert {name for name in table if name.endswith("Parameter")} == types


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_can_be_imported(page: str) -> None:
    for name in set(re.findall(r"`(taskapi(?:\.\w+)+)", prose(page))) - {protocol.SUBPROTOCOL}:
        if not re.fullmatch(r"taskapi\.[EW]\d+", name):
            assert find(name) is not None, f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_classes_are_theirs(page: str) -> None:
    for kind in (Task, TaskInfo):
        for name in re.findall(rf"`{kind.__name__}\.(\w+)", prose(page)):
            assert hasattr(kind, name) or name in kind.__annotations__, f"{page} names {kind.__name__}.{name}"


def find(name: str) -> object:
    """What the dotted name leads to, through modules and classes."""
    path = name.split(".")
    for length in range(len(path), 0, -1):
        try:
            found: object = __import__(".".join(path[:length]), fromlist=["*"])
        except ModuleNotFoundError:
            continue
        for attribute in path[length:]:
            found = getattr(found, attribute, None)
        return found
    return None


# The wire


def test_the_codes_of_an_error_frame_are_those_of_the_code() -> None:
    raised = set(re.findall(r'ProtocolError\("(\w+)"', CODE))
    assert first_column("docs/protocol.md", "`error`") == raised | set(access._CODES.values())


def test_the_frames_of_a_client_are_those_of_the_code() -> None:
    sections = re.findall(r"^### `(\w+)`$", prose("docs/protocol.md"), re.MULTILINE)
    assert set(sections) == {*protocol._PARSERS, "error"}


def test_the_representation_is_that_of_the_code() -> None:
    fields = protocol.represent(TaskInfo(), []).keys() | {code.value for code in ErrorCode}
    assert first_column("docs/protocol.md", "The representation of a run") == fields


def test_the_rest_calls_are_those_of_the_code() -> None:
    paths = {str(url.pattern).replace("<uuid:uuid>", "{uuid}") for url in urls.urlpatterns}
    assert {call.split()[1] for call in first_column("docs/rest.md", "REST")} == paths


def test_the_tables_and_urls_of_the_1x_page_are_those_of_the_code() -> None:
    tables = {model._meta.db_table for model in apps.get_app_config("taskapi").get_models()}
    names = {f"{urls.app_name}:{url.name}" for url in urls.urlpatterns}
    assert tables | names <= set(re.findall(r"`([\w:]+)`", prose("docs/from-1x.md")))


# Commands


def test_the_options_of_the_worker_are_those_of_the_code() -> None:
    of_django = BaseCommand().create_parser("", "")._option_string_actions
    parser = TaskWorker().create_parser("manage.py", "taskworker")
    options = {name: action for name, action in parser._option_string_actions.items() if name not in of_django}
    assert {name.split()[0] for name in first_column("docs/deployment.md", "Workers")} == options.keys()
    for name, action in options.items():
        if isinstance(action.default, (int, float)) and action.default is not False:
            assert f"| `{name} {action.metavar}` | {action.default:g} |" in text_of("docs/deployment.md")
