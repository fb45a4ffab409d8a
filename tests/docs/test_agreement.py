"""The documentation and the code name the same things."""

import inspect
import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError

import taskapi
from taskapi import conf, params, protocol, runs, urls
from taskapi.engines import local
from taskapi.events import hub
from taskapi.management.checks.databases import BUSY_TIMEOUT
from taskapi.management.commands.runtask import Command as RunTask
from taskapi.management.commands.taskschema import Command as TaskSchema
from taskapi.management.commands.taskworker import Command as TaskWorker
from taskapi.management.running import following, remote
from taskapi.models import TaskInfo
from taskapi.params import FieldParameter, Parameter, values
from taskapi.protocol import MANY_LENGTH
from taskapi.protocol.states import ErrorCode
from taskapi.runs import listing
from taskapi.runs.refusals import CODES
from taskapi.schemas.names import key_of
from taskapi.schemas.tasks import definitions, described
from taskapi.store import ledger
from taskapi.tasks import Task
from taskapi.views import pages
from taskapi.workers import host, leases, reloading, upkeep
from taskapi.workers.isolation import parent
from tests.docs.pages import PAGES, ROOT, prose, text_of

PACKAGE = Path(taskapi.__file__).parent
CODE = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))


def first_column(page: str, heading: str) -> set[str]:
    """Return the names in code style in the first column of the tables under this heading."""
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", prose(page), re.DOTALL | re.MULTILINE)
    assert section, f"{page} has no heading {heading!r}"
    cells = re.findall(r"^\| (.*?) \|", section[1], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}


# Settings


def settings_of_the_code() -> set[str]:
    names = re.findall(r'(?:_(?:get|get_often|classes)\("|"TASK_API_)(\w+)"', (PACKAGE / "conf.py").read_text())
    return {f"TASK_API_{name}" for name in (*names, *conf.TASKS_SETTINGS)}


def test_every_setting_has_a_section_and_every_section_a_setting() -> None:
    sections = re.findall(r"^### `(TASK_API_\w+)`$", text_of("docs/settings.md"), re.MULTILINE)
    assert set(sections) == settings_of_the_code()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_a_page_names_no_setting_that_is_not_there(page: str) -> None:
    assert set(re.findall(r"TASK_API_[A-Z_]*[A-Z]", text_of(page))) <= settings_of_the_code() | {remote.TOKEN}


def test_the_defaults_of_settings_are_those_of_the_code() -> None:
    for default in (conf.DEFAULT_BACKEND, conf.DEFAULT_REDIS_URL, str(conf.DEFAULT_EVENT_INTERVAL)):
        assert default in text_of("docs/settings.md")


def test_the_system_checks_are_those_of_the_code() -> None:
    ids = set(re.findall(r"taskapi\.[EWI]\d+", CODE))
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
    types -= {Parameter.__name__, FieldParameter.__name__}  # base classes, for a project's own types
    table = {name.partition("(")[0] for name in first_column("docs/parameters.md", "Types")}
    assert {name for name in table if name.endswith("Parameter")} == types


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_can_be_imported(page: str) -> None:
    for name in set(re.findall(r"`(taskapi(?:\.\w+)+)", prose(page))) - {protocol.SUBPROTOCOL}:
        if not re.fullmatch(r"taskapi\.[EWI]\d+", name):
            assert find(name) is not None, f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_classes_are_theirs(page: str) -> None:
    for kind in (Task, TaskInfo):
        for name in re.findall(rf"`{kind.__name__}\.(\w+)", prose(page)):
            assert hasattr(kind, name) or name in kind.__annotations__, f"{page} names {kind.__name__}.{name}"


def find(name: str) -> object:
    """Return what a dotted name refers to, through modules and classes."""
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
    assert first_column("docs/protocol.md", "`error`") == raised | set(CODES.values())


def test_the_frames_of_a_client_are_those_of_the_code() -> None:
    sections = re.findall(r"^### `(\w+)`$", prose("docs/protocol.md"), re.MULTILINE)
    assert set(sections) == {*protocol.PARSERS, "error"}


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


def test_the_options_of_runtask_are_those_of_the_code() -> None:
    of_django = BaseCommand().create_parser("", "")._option_string_actions
    options = RunTask().create_parser("manage.py", "runtask")._option_string_actions.keys() - of_django.keys()
    named = {name.split()[0] for name in first_column("docs/commands.md", "`runtask`")}
    assert named - {"--verbosity"} == options  # which is Django's own


def test_the_options_of_taskschema_are_those_of_the_code() -> None:
    of_django = BaseCommand().create_parser("", "")._option_string_actions
    options = TaskSchema().create_parser("manage.py", "taskschema")._option_string_actions.keys() - of_django.keys()
    assert {name.split()[0] for name in first_column("docs/commands.md", "`taskschema`")} == options


def test_the_schemas_of_a_task_are_named_as_the_page_says() -> None:
    task = type("SendMail", (Task,), {"name": "send_mail"})
    found = {name for name in definitions([described(task)]) if name.startswith("SendMail")}
    assert first_column("docs/schemas.md", "What it says of your tasks") == found
    assert f"`{key_of('reports/monthly')}`" in text_of("docs/schemas.md")


OURS = {name for name, app in get_commands().items() if app == "taskapi"}
CALL = re.compile(r"manage\.py (\w+)((?: +[^\s`#|&]+)*)")


def test_every_command_is_in_the_pages() -> None:
    assert {name for name in OURS if not any(f"manage.py {name}" in text_of(page) for page in PAGES)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_that_a_page_names_are_there_and_take_these_options(page: str) -> None:
    for name, arguments in CALL.findall(text_of(page)):
        assert name in get_commands(), f"{page} names manage.py {name}"
        if name in OURS:
            parser = load_command_class("taskapi", name).create_parser("manage.py", name)
            try:
                parser.parse_args(shlex.split(arguments.rstrip(".,;:)")))
            except CommandError as error:
                pytest.fail(f"{page}: manage.py {name}{arguments}: {error}")


def test_the_options_of_the_demo_are_those_of_the_code() -> None:
    code = (ROOT / "demo" / "launcher.py").read_text()
    named = {name for cell in first_column("docs/demo.md", "What runs") for name in re.findall(r"--\w+", cell)}
    assert named == set(re.findall(r'add_argument\("(--\w+)"', code))


def test_the_options_of_the_script_are_those_of_the_code() -> None:
    declared = re.search(
        r"interface Options {(.*?)^}", (ROOT / "frontend/src/options.ts").read_text(), re.DOTALL | re.MULTILINE
    )
    assert declared is not None
    options = set(re.findall(r"^  (\w+)\??:", declared[1], re.MULTILINE))
    assert first_column("docs/javascript.md", "Options") == options


@pytest.mark.parametrize("page", PAGES)
def test_the_targets_of_make_that_a_page_names_are_there(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^\s*)make ([a-z][\w-]*)", text_of(page), re.MULTILINE)) <= targets


# Statements that something does not exist

#: Such a statement; but not a condition: "if there is no such run".
ABSENCE = re.compile(
    r"\bthere (?:is|are) no\b(?! such)|\bno \w+(?: \w+)? yet\b|\bonly one so far\b|\bnot (?:there )?yet\b",
    re.IGNORECASE,
)
CONDITION = re.compile(r"\b(?:if|where|when|once|after|while)\b[^.;:]*$", re.IGNORECASE)


def is_no_module(name: str) -> bool:
    return find_spec(name) is None


def routes() -> str:
    return " ".join(str(url.pattern) for url in urls.urlpatterns)


#: Each such statement of the pages for users, by its first words, and a check that it is true.
ABSENT: dict[str, Callable[[], bool]] = {
    "There are no parameters for files or for model instances": lambda: (
        not {"FileParameter", "ModelParameter"} & {*dir(params)}
    ),
    "There are no uploads": lambda: "uploads" not in routes(),
    "there is no Celery backend yet": lambda: is_no_module("taskapi.backends.celery"),
    "An accepted request is not yet the end": lambda: True,  # of a cancel request: tests/faults/test_cancel.py
    "there is no gap between state and stream": lambda: True,  # tests/unit/test_subscription.py
}


def absences(page: str) -> list[str]:
    text = re.sub(r"`[^`]*`", "CODE", prose(page))  # code is not prose
    sentences = re.split(r"(?<=[.:;!?])\s+|\n\n|\n- |\||^#+ .*$", text, flags=re.MULTILINE)
    found = []
    for sentence in sentences:
        line = " ".join(sentence.split())
        said = ABSENCE.search(line)
        if said and not CONDITION.search(line[: said.start()]):
            found.append(line)
    return found


FOR_USERS = ["README.md", *(page for page in PAGES if page.startswith("docs/") and page != "docs/discussions.md")]


@pytest.mark.parametrize("page", FOR_USERS)
def test_what_a_page_says_is_not_there_is_listed_here(page: str) -> None:
    unlisted = [said for said in absences(page) if not any(known in said for known in ABSENT)]
    assert unlisted == [], "list it in ABSENT, with a check that it is true"


@pytest.mark.parametrize("sentence", ABSENT)
def test_what_is_said_not_to_be_there_is_not_there(sentence: str) -> None:
    assert any(sentence in said for page in FOR_USERS for said in absences(page)), "no page says it any more"
    assert ABSENT[sentence](), f"it exists, but a page says: {sentence}"


# Numbers

WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}

#: A page, a phrase of it with a number, and the constant that has this number.
NUMBERS = (
    ("docs/tasks.md", "a lease of {} seconds", runs.LEASE),
    ("docs/tasks.md", "within some {} seconds if Redis is away", leases.RENEW_INTERVAL),
    ("docs/tasks.md", "has {} seconds to clean up", parent.KILL_AFTER),
    ("docs/deployment.md", "waits {} seconds more", host.CLEANUP_TIME),
    ("docs/deployment.md", "every {} seconds it is offered", runs.UNKNOWN_PAUSE),
    ("docs/deployment.md", "has taken it for {} minutes", runs.UNKNOWN_LIMIT / 60),
    ("docs/deployment.md", "up to {} minutes for each write", ledger.GIVE_UP / 60),
    ("docs/deployment.md", "every {} seconds, up to", host.SWEEP_INTERVAL),
    ("docs/deployment.md", "seconds, up to {}.", upkeep.PRUNE_ROWS * upkeep.PRUNE_PAGES),
    ("docs/commands.md", "has taken the run for {} seconds", following.PATIENCE),
    ("docs/commands.md", "within {} seconds at most", reloading.RELOAD_GRACE),
    ("docs/protocol.md", "follow, every {} seconds", hub.WATCH_INTERVAL),
    ("docs/protocol.md", "a string of at most {} characters", protocol.REF_LENGTH),
    ("docs/rest.md", "is a list of inputs, {} at most", MANY_LENGTH),
    ("docs/rest.md", "are larger than {} KiB, they are left out", listing.LISTED_BYTES / 1024),
    ("docs/rest.md", "larger than {} KiB together, or more than", listing.LISTED_BYTES / 1024),
    ("docs/rest.md", "together, or more than {}.", listing.LISTED_MESSAGES),
    ("docs/rest.md", "how many runs a page has: {} at most", pages.MOST_SIZE),
    ("docs/rest.md", "if the project sets it, or else {} |", pages.PAGE_SIZE),
    ("docs/glossary.md", "for {} seconds, renewed every", runs.LEASE),
    ("docs/glossary.md", "renewed every {}", leases.RENEW_INTERVAL),
    ("docs/glossary.md", "every {} seconds: take back, requeue, prune", host.SWEEP_INTERVAL),
    ("docs/parameters.md", "ends at {} lists and dicts", protocol.MAX_DEPTH),
    ("docs/parameters.md", "After {} sentences about one value", values.MAX_SENTENCES),
    ("docs/backends.md", "at most {} at once", local.CONCURRENCY),
    ("docs/backends.md", "looks there every {} seconds", host.SWEEP_INTERVAL),
    ("docs/backends.md", "has waited for {} seconds", upkeep.SWEEP_AGE),
    ("docs/backends.md", "They have {} seconds to clean up", local.CLEANUP_TIME),
    ("docs/backends.md", "after {} seconds or a little more", runs.LEASE),
    ("docs/backends.md", "are looked at, every {} seconds", hub.WATCH_INTERVAL),
    ("docs/backends.md", "is renewed, every {} seconds", leases.RENEW_INTERVAL),
    ("docs/settings.md", "with a busy timeout under {} seconds", BUSY_TIMEOUT),
)


@pytest.mark.parametrize(("page", "sentence", "constant"), NUMBERS)
def test_the_numbers_in_the_pages_are_those_of_the_code(page: str, sentence: str, constant: float | timedelta) -> None:
    value = constant.total_seconds() if isinstance(constant, timedelta) else constant
    said = " ".join(text_of(page).split())
    assert any(sentence.format(number) in said for number in (f"{value:,g}", WORDS.get(int(value))))
