"""The OpenAPI and the AsyncAPI document: valid, complete, with the tasks of the caller, served and written."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import clear_url_caches, include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import spectacular_settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from taskapi import __version__
from taskapi.schemas import asyncapi, openapi
from taskapi.schemas.documents import MISSING, document
from taskapi.schemas.mount import find_mount
from taskapi.schemas.parts import references
from taskapi.schemas.tasks import described
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks
from tests.documents.tasks import OURS, Report

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/documents/asyncapi.json"  # frontend/tests/asyncapi.test.ts validates it
WRITE_IT = (
    "DJANGO_SETTINGS_MODULE=tests.documents.settings .venv/bin/python -m django taskschema "
    "--asyncapi tests/documents/asyncapi.json"
)


def openapi_of(*of_tasks: type[Task], mount: str = "/") -> dict[str, Any]:
    return openapi.document(map(described, of_tasks), mount)


def asyncapi_of(*of_tasks: type[Task], mount: str = "/") -> dict[str, Any]:
    return asyncapi.document(map(described, of_tasks), mount)


# OpenAPI


@pytest.mark.parametrize("of_tasks", [[], [Report], OURS, None], ids=["none", "one", "several", "the project's"])
def test_the_openapi_document_is_valid(of_tasks: list[type[Task]] | None) -> None:
    known = list(tasks().values()) if of_tasks is None else of_tasks
    OpenAPIV31SpecValidator(openapi_of(*known)).validate()


def test_the_openapi_document_is_3_1_with_todays_json_schema() -> None:
    whole = openapi_of()
    assert whole["openapi"].startswith("3.1.")
    assert whole["jsonSchemaDialect"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_openapi_document_has_our_calls_and_no_others() -> None:
    paths = openapi_of(mount="/api/")["paths"]
    assert {"/api/tasks/", "/api/tasks/{uuid}/", "/api/tasks/{uuid}/cancel/"} < paths.keys()
    assert all(address.startswith("/api/tasks/") for address in paths)


def test_a_body_is_a_choice_over_the_tasks_with_the_inputs_of_each() -> None:
    whole = openapi_of(*OURS)
    body = whole["paths"]["/tasks/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check = Draft202012Validator({**body, "components": whole["components"]})
    assert check.is_valid({"task": "report", "inputs": {"year": 2026, "form": "pdf"}})
    assert check.is_valid({"task": "report", "many": [{"year": 2026}, {"year": 2027}]})
    assert check.is_valid({"task": "old/Säuberung"})
    assert check.is_valid({"task": "mute", "inputs": {"anything": 1}})
    for wrong in (
        {"task": "report"},
        {"task": "report", "inputs": {"year": 1999}},
        {"task": "report", "inputs": {"year": 2026, "form": "odt"}},
        {"task": "old/Säuberung", "inputs": {"year": 2026}},
        {"task": "other"},
        {"task": "report", "inputs": {"year": 2026}, "many": [{"year": 2026}]},
    ):
        assert not check.is_valid(wrong), wrong


def test_each_task_has_its_inputs_and_outputs_as_schemas() -> None:
    schemas = openapi_of(*OURS)["components"]["schemas"]
    assert schemas["ReportInputs"] == Report.describe()["inputs"]
    assert schemas["ReportOutputs"] == Report.describe()["outputs"]
    assert schemas["ReportStart"]["description"] == "Write the report of a year."


@pytest.mark.parametrize(
    ("data", "is_html"), [("<p>", True), ("failed", True), ("\n <p>", True), ('{"type": 1}', False)]
)
def test_the_events_of_a_page_are_html_or_a_word_and_never_json(data: str, is_html: bool) -> None:
    """A run that ends without outputs has nothing to show at its end: the event has its status."""
    event = openapi_of()["components"]["schemas"]["TaskServerSentEvent"]
    _, html = event["properties"]["data"]["anyOf"]
    assert bool(re.search(html["pattern"], data)) is is_html


def test_the_security_schemes_are_those_of_the_projects_authentication(settings: Any) -> None:
    settings.TASK_API_AUTHENTICATION_CLASSES = ["rest_framework.authentication.TokenAuthentication"]
    settings.TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
    whole = openapi_of(Report)
    assert whole["components"]["securitySchemes"].keys() == {"tokenAuth"}
    assert whole["paths"]["/tasks/"]["post"]["security"] == [{"tokenAuth": []}]


def test_a_caller_without_credentials_is_served_where_the_project_serves_everybody(settings: Any) -> None:
    for nothing_is_asked in ([], ["rest_framework.permissions.AllowAny"]):
        settings.TASK_API_PERMISSIONS_CLASSES = nothing_is_asked
        assert openapi_of(Report)["paths"]["/tasks/"]["post"]["security"][-1] == {}


# AsyncAPI


def test_the_asyncapi_document_is_the_one_that_the_frontends_tests_validate() -> None:
    golden = json.loads(GOLDEN.read_text())
    golden["info"]["version"] = __version__
    assert json.loads(document("asyncapi", OURS, "/")) == golden, f"if that is right, write it again:\n{WRITE_IT}"


@pytest.mark.parametrize("of_tasks", [[], OURS])
def test_each_reference_of_the_asyncapi_document_leads_somewhere(of_tasks: list[type[Task]]) -> None:
    whole = asyncapi_of(*of_tasks)
    for kind, name in references(whole):
        assert name in whole["components"][kind]
    messages = whole["channels"]["tasks"]["messages"]
    for operation in whole["operations"].values():
        for message in (*operation["messages"], *operation.get("reply", {}).get("messages", ())):
            assert message["$ref"].removeprefix("#/channels/tasks/messages/") in messages


def test_each_message_of_the_asyncapi_document_belongs_to_an_operation() -> None:
    whole = asyncapi_of(Report)
    used = {
        message["$ref"].rpartition("/")[2]
        for operation in whole["operations"].values()
        for message in (*operation["messages"], *operation.get("reply", {}).get("messages", ()))
    }
    assert used == whole["channels"]["tasks"]["messages"].keys() == whole["components"]["messages"].keys()


def test_the_asyncapi_document_says_where_the_socket_is_and_how_it_opens_and_closes() -> None:
    channel = asyncapi_of(Report, mount="/api/")["channels"]["tasks"]
    assert channel["address"] == "/api/tasks/ws/"
    assert "4401" in channel["x-close-codes"]
    handshake = channel["bindings"]["ws"]["headers"]["properties"]
    assert handshake["Sec-WebSocket-Protocol"]["enum"] == ["taskapi.v1"]


def test_a_run_frame_has_the_inputs_of_its_task() -> None:
    schemas = asyncapi_of(*OURS)["components"]
    check = Draft202012Validator({"$ref": "#/components/schemas/TaskRunFrame", "components": schemas})
    assert check.is_valid({"type": "run", "ref": "1", "task": "report", "inputs": {"year": 2026}})
    assert not check.is_valid({"type": "run", "ref": "1", "task": "report", "inputs": {}})


# Text


@pytest.mark.parametrize("kind", ["openapi", "asyncapi"])
def test_the_same_tasks_give_the_same_text_in_any_order(kind: Any) -> None:
    assert document(kind, OURS, "/") == document(kind, reversed(OURS), "/")


@pytest.mark.parametrize("kind", ["openapi", "asyncapi"])
def test_a_document_is_built_once_for_the_same_tasks_and_again_for_other_settings(kind: Any, settings: Any) -> None:
    first = document(kind, OURS, "/")
    assert document(kind, OURS, "/") is first
    settings.TASK_API_AUTHENTICATION_CLASSES = ["rest_framework.authentication.TokenAuthentication"]
    assert document(kind, OURS, "/") is not first


# Served

ADDRESSES = {"openapi": "/tasks/openapi.json", "asyncapi": "/tasks/asyncapi.json"}


@pytest.fixture
def our_tasks(settings: Any) -> None:
    settings.TASK_API_BACKGROUND_TASKS = OURS


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_document_has_the_tasks_that_its_caller_may_run(kind: str, our_tasks: None) -> None:
    staff = APIClient()
    staff.force_login(User.objects.create_user("staff", is_staff=True))
    for client, schemas in ((APIClient(), {"ReportInputs", "MuteInputs"}), (staff, set())):
        found = client.get(ADDRESSES[kind]).json()["components"]["schemas"]
        assert schemas <= found.keys()
        assert any(name.startswith("OldSUberung_") for name in found) is (client is staff)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_document_is_refused_to_those_whom_the_project_refuses(kind: str, settings: Any) -> None:
    settings.TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
    assert APIClient().get(ADDRESSES[kind]).status_code in (401, 403)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "accept", "answered"),
    [
        ("openapi", "*/*", "application/json"),
        ("openapi", "application/vnd.oai.openapi+json", "application/vnd.oai.openapi+json"),
        ("openapi", "application/problem+json", "application/json"),
        ("asyncapi", "application/json", "application/json"),
        ("asyncapi", "application/vnd.aai.asyncapi+json", "application/vnd.aai.asyncapi+json"),
    ],
)
def test_a_document_is_json_under_the_name_that_the_caller_asks_for(kind: str, accept: str, answered: str) -> None:
    response = APIClient().get(ADDRESSES[kind], headers={"accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, answered)
    assert kind in json.loads(response.content)


@pytest.mark.django_db
def test_the_asyncapi_document_names_the_server_that_answers() -> None:
    served = APIClient().get(ADDRESSES["asyncapi"], secure=True).json()
    assert served["servers"] == {"server": {"host": "testserver", "protocol": "wss"}}


@pytest.mark.django_db
def test_without_the_extra_openapi_says_what_to_install_and_asyncapi_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drf_spectacular", None)
    refused = APIClient().get(ADDRESSES["openapi"])
    assert (refused.status_code, refused.json()) == (501, {"detail": MISSING, "code": "not_installed"})
    assert 'pip install "django-task-api[openapi]"' in MISSING
    assert APIClient().get(ADDRESSES["asyncapi"]).status_code == 200


class Below:
    """URLs that mount ours below another namespace."""

    urlpatterns = [path("api/", include(([path("", include("taskapi.urls"))], "outer")))]


@pytest.fixture
def mounted_below(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = Below
    clear_url_caches()
    yield
    clear_url_caches()


@pytest.mark.django_db
def test_a_served_document_has_the_paths_of_its_own_address(mounted_below: None) -> None:
    served = Client().get("/api/tasks/openapi.json").json()
    assert "/api/tasks/{uuid}/" in served["paths"]
    channels = Client().get("/api/tasks/asyncapi.json").json()["channels"]
    assert channels["tasks"]["address"] == "/api/tasks/ws/"


def test_the_place_where_we_are_mounted_is_found_in_the_urls_of_the_project(mounted_below: None) -> None:
    assert find_mount() == "/api/"


# Written


def test_the_command_prints_openapi_without_options(our_tasks: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("taskschema")
    printed = json.loads(capsys.readouterr().out)
    assert "ReportInputs" in printed["components"]["schemas"]
    assert any(name.startswith("OldSUberung_") for name in printed["components"]["schemas"])


def test_the_command_writes_files_that_can_be_committed(our_tasks: None, tmp_path: Path) -> None:
    files = [tmp_path / "openapi.json", tmp_path / "asyncapi.json"]
    for _ in range(2):
        call_command("taskschema", openapi=str(files[0]), asyncapi=str(files[1]), server="https://example.org")
    one, other = (json.loads(file.read_text()) for file in files)
    assert one["servers"] == [{"url": "https://example.org"}]
    assert other["servers"] == {"server": {"host": "example.org", "protocol": "wss"}}
    assert all(file.read_text().endswith("}\n") for file in files)


@pytest.mark.parametrize(
    ("options", "sentence", "code"),
    [
        ({"openapi": "-", "asyncapi": "-"}, "one document", 2),
        ({"openapi": "/nowhere/openapi.json"}, "/nowhere/openapi.json could not be written", 1),
    ],
)
def test_the_command_says_what_it_cannot_do(options: dict[str, str], sentence: str, code: int) -> None:
    with pytest.raises(CommandError, match=sentence) as caught:
        call_command("taskschema", **options)
    assert caught.value.returncode == code


def test_the_command_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "drf_spectacular", None)
    with pytest.raises(CommandError, match="django-task-api\\[openapi\\]"):
        call_command("taskschema")
    call_command("taskschema", asyncapi="-")
    assert json.loads(capsys.readouterr().out)["asyncapi"]


# A project that has drf-spectacular


@pytest.mark.parametrize("version", [None, "3.1.1"])
def test_a_projects_own_document_has_our_calls(version: str | None, tmp_path: Path) -> None:
    whole = document_of_project(tmp_path, **({"OAS_VERSION": version} if version else {}))
    (OpenAPIV31SpecValidator if version else OpenAPIV30SpecValidator)(whole).validate()
    ours = {address for address in whole["paths"] if address.startswith("/api/tasks/")}
    assert ours == openapi_of(mount="/api/")["paths"].keys()
    start = whole["paths"]["/api/tasks/"]["post"]
    assert {"201", "400", "429"} < start["responses"].keys()
    schemas = whole["components"]["schemas"]
    assert {"SumInputs", "SumOutputs", "TaskRun"} < schemas.keys()
    assert schemas["StatusEnum"]["enum"] == ["open", "paid"]  # the project's own keeps its name


@pytest.mark.django_db
def test_a_projects_own_document_that_is_not_public_has_the_tasks_of_its_reader(
    our_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectacular_settings, "SERVE_PUBLIC", False)
    request = APIRequestFactory().get("/schema/")
    staff = User.objects.create_user("staff", is_staff=True)
    for user, count in ((AnonymousUser(), 2), (staff, 3)):
        force_authenticate(request, user)
        generator = SchemaGenerator(patterns=[path("", include("taskapi.urls"))])
        whole = generator.get_schema(APIView().initialize_request(request), public=False)
        assert len(whole["components"]["schemas"]["TaskStart"]["oneOf"]) == count


def document_of_project(folder: Path, **variables: str) -> dict[str, Any]:
    """What drf-spectacular's own command writes; it fails if the generator has a warning."""
    file = folder / "schema.json"
    command = ["spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", "--file", str(file)]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.project.documented", **variables}
    subprocess.run([sys.executable, "-m", "django", *command], env=environment, cwd=ROOT, check=True, timeout=60)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_package_is_imported_without_the_extra() -> None:
    code = """
import sys
sys.modules["drf_spectacular"] = None
import django
django.setup()
import taskapi.urls, taskapi.routing, taskapi.management.commands.taskschema
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.project.settings"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True, timeout=60)
