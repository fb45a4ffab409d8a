"""The definitions of the schemas: what they say of runs, frames and tasks is what the code does."""

import json
import logging
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from taskapi import params, protocol, urls
from taskapi.models import TaskInfo
from taskapi.protocol import MANY_LENGTH, OMITTED
from taskapi.protocol.states import FINAL, Status
from taskapi.runs.refusals import CODES
from taskapi.schemas.calls import CALLS
from taskapi.schemas.definitions import components
from taskapi.schemas.frames import ANSWERS, CLIENT, CLOSE_CODES, EVENTS, name_of
from taskapi.schemas.names import key_of
from taskapi.schemas.parts import needed, references
from taskapi.schemas.plain import as_openapi_3_0, hidden_from_enum_hook
from taskapi.schemas.refusals import ERROR_CODES
from taskapi.schemas.tasks import described
from taskapi.tasks import Task
from tests.project.tasks import Sum

FRAMES = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.parent.glob("frames/*.json")}
KINDS = {"client": CLIENT, "server": {**ANSWERS, **EVENTS}}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@cache
def definitions() -> dict[str, Any]:
    return components([described(Sum)])


def fits(name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": definitions()}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).is_valid(value)


# Frames


@pytest.mark.parametrize("name", FRAMES)
def test_a_golden_frame_is_the_message_that_its_type_says_and_no_other(name: str) -> None:
    golden = FRAMES[name]
    fitting = [kind for kind in KINDS[golden["direction"]] if fits(name_of(kind), golden["frame"])]
    assert fitting == [golden["frame"]["type"]]


@pytest.mark.parametrize("kind", [*CLIENT, *ANSWERS, *EVENTS])
def test_each_message_has_a_golden_frame(kind: str) -> None:
    assert any(golden["frame"]["type"] == kind for golden in FRAMES.values())


@pytest.mark.parametrize("name", FRAMES)
def test_a_golden_frame_with_one_more_field_is_no_message(name: str) -> None:
    golden = FRAMES[name]
    more = {**golden["frame"], "surprise": 1}
    assert not any(fits(name_of(kind), more) for kind in KINDS[golden["direction"]])


def test_a_client_may_send_what_the_server_parses() -> None:
    assert CLIENT.keys() == protocol.PARSERS.keys()


def test_the_codes_of_errors_are_those_of_the_page_of_the_protocol() -> None:
    page = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    table = page[page.index("### `error`") : page.index("## Events")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ERROR_CODES)
    assert set(CODES.values()) <= set(ERROR_CODES)


def test_the_codes_of_closing_are_those_of_the_page_of_the_protocol() -> None:
    page = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    table = page[page.index("## Closing") :]
    assert set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == CLOSE_CODES.keys()


def test_an_event_that_is_written_now_fits() -> None:
    uuid = "0b2f5f0e-7ad7-4bbf-9d53-5b3a1f1d8b0e"
    for kind, event in {
        "status": protocol.begun_event(uuid, 1),
        "target": protocol.target_event(uuid, 1, 5, None),
        "progress": protocol.progress_event(uuid, 1, 6, None, 3),
        "message": protocol.message_event(uuid, 1, 7, 0, OMITTED),
        "finished": protocol.finished_event(run(Status.FAILED, error={"code": "my_own", "message": "No."})),
    }.items():
        assert fits(name_of(kind), json.loads(event.text)), kind
        assert fits("TaskStreamEvent", json.loads(event.text)), kind


# Runs


def run(status: Status, **fields: Any) -> TaskInfo:
    info = TaskInfo(task="sum", status=status, inputs={"numbers": [1]}, created=NOON, **fields)
    info.finished = NOON if status in FINAL else None
    return info


WHOLE = {
    Status.PENDING: {},
    Status.RUNNING: {"started": NOON, "progress": 1, "target": 3},
    Status.SUCCEEDED: {"started": NOON, "outputs": {"sum": 1}},
    Status.FAILED: {"started": NOON, "error": {"code": "timeout", "message": "Too long."}},
    Status.CANCELLED: {"cancel_requested": True},
}
STAGES = ("Unfinished", "Succeeded", "Failed", "Cancelled")


@pytest.mark.parametrize("status", Status)
def test_a_representation_is_a_run_of_one_stage(status: Status) -> None:
    shown = protocol.represent(run(status, **WHOLE[status]), ["a", None])
    stage = "Unfinished" if status not in FINAL else status.value.capitalize()
    assert fits("TaskRun", shown)
    assert [name for name in STAGES if fits(f"{name}TaskRun", shown)] == [stage]


@pytest.mark.parametrize("field", protocol.represent(TaskInfo(), []))
def test_a_representation_without_one_of_its_fields_is_none(field: str) -> None:
    shown = protocol.represent(run(Status.RUNNING, started=NOON), [])
    del shown[field]
    assert not fits("TaskRun", shown)


def test_outputs_before_the_end_are_no_representation() -> None:
    shown = protocol.represent(run(Status.RUNNING, started=NOON, outputs={"sum": 1}), [])
    assert not fits("TaskRun", shown)


def test_a_hint_may_be_there_while_a_run_waits() -> None:
    info = run(Status.PENDING)
    info.hint = {"code": "no_worker", "message": "Start one."}
    assert fits("TaskRun", protocol.represent(info, []))


# Calls


def test_each_url_has_its_calls_and_each_call_its_url() -> None:
    found = set()
    for url in urls.urlpatterns:
        view: Any = url.callback
        route = str(url.pattern).replace("<uuid:uuid>", "{uuid}")
        found |= {(route, method) for method in ("GET", "POST") if hasattr(view.cls, method.lower())}
    assert {(call.path, call.method) for call in CALLS} == found


def test_a_call_starts_as_many_runs_as_its_view_takes() -> None:
    assert definitions()["schemas"]["TaskStartMany"]["oneOf"] == [{"$ref": "#/components/schemas/SumStartMany"}]
    assert definitions()["schemas"]["SumStartMany"]["properties"]["many"]["maxItems"] == MANY_LENGTH


def test_each_reference_of_a_call_leads_somewhere() -> None:
    for call in CALLS:
        found = needed(call.operation, definitions())
        for kind, name in references([call.operation, found]):
            assert name in definitions()[kind], (call.path, name)


def test_each_definition_is_a_schema() -> None:
    for schema in definitions()["schemas"].values():
        validator_for({"$schema": "https://json-schema.org/draft/2020-12/schema"}).check_schema(schema)


# Tasks


@pytest.mark.parametrize(
    ("name", "key"), [("sum", "Sum"), ("send_mail", "SendMail"), ("sum2", "Sum2"), ("a_b_c", "ABC")]
)
def test_a_plain_name_makes_a_plain_key(name: str, key: str) -> None:
    assert key_of(name) == key


STRANGE = [
    "Sum",
    "SUM",
    "sum_",
    "_sum",
    "s.u.m",
    "reports/monthly",
    "été",
    "日本",
    "a" * 255,
    "\ud800",
    " ",
    "sum_2",
    "~/",
]


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_makes_a_key_that_a_component_may_have(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", key_of(name))


def test_no_two_names_make_one_key() -> None:
    names = [*STRANGE, "sum", "sum2", "a_b", "ab", "a" * 254, "a" * 60, "a" * 61]
    assert len(set(map(key_of, names))) == len(names)


def test_a_task_of_any_name_can_be_started_as_its_schema_says() -> None:
    for name in STRANGE:
        task = type("Strange", (Task,), {"name": name, "inputs": {"n": params.IntParameter()}})
        schemas = components([described(task)])
        check = Draft202012Validator({"$ref": "#/components/schemas/TaskStart", "components": schemas})
        assert check.is_valid({"task": name, "inputs": {"n": 1}})
        assert not check.is_valid({"task": name, "inputs": {"m": 1}})
        assert not check.is_valid({"task": f"{name}!", "inputs": {"n": 1}})


def test_one_and_many_are_told_apart() -> None:
    assert fits("TaskStart", {"task": "sum", "inputs": {"numbers": [1]}})
    assert not fits("TaskStart", {"task": "sum", "many": [{"numbers": [1]}]})
    assert fits("TaskStartMany", {"task": "sum", "many": [{"numbers": [1]}]})
    assert not fits("TaskStartMany", {"task": "sum", "inputs": {"numbers": [1]}})


def test_inputs_may_be_left_out_where_none_are_required() -> None:
    class Idle(Task):
        name = "idle"

    schemas = components([described(Idle)])
    assert Draft202012Validator({"$ref": "#/components/schemas/TaskStart", "components": schemas}).is_valid(
        {"task": "idle"}
    )


class Broken(params.Parameter):
    """A parameter that cannot describe itself."""

    def json_schema(self) -> dict[str, Any]:
        raise ConnectionError("the catalogue is away")


class Unwritable(params.Parameter):
    """A parameter that describes itself with what is not JSON."""

    def json_schema(self) -> dict[str, Any]:
        return {"default": float("nan")}


@pytest.mark.parametrize("parameter", [Broken(), Unwritable()])
def test_a_task_that_cannot_describe_itself_takes_anything_and_the_log_says_why(
    parameter: params.Parameter, caplog: pytest.LogCaptureFixture
) -> None:
    task = type("Mute", (Task,), {"name": "mute", "inputs": {"it": parameter}})
    with caplog.at_level(logging.ERROR):
        schemas = components([described(Sum), described(task)])
    assert schemas["schemas"]["MuteInputs"] == {"type": "object"}
    assert schemas["schemas"]["SumInputs"]["required"] == ["numbers"]
    assert "'mute'" in caplog.text


class Point(params.Parameter):
    """A parameter whose schema refers to a part of itself, as those of other libraries do."""

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "number"}
        return {"type": "array", "items": {"$ref": "#/$defs/Number"}, "$defs": {"Number": number}}


def test_a_reference_within_a_parameter_leads_to_the_same_place_in_the_document() -> None:
    task = type("Walk", (Task,), {"name": "walk", "inputs": {"to the/end~": Point()}})
    check = Draft202012Validator(
        {"$ref": "#/components/schemas/WalkInputs", "components": components([described(task)])}
    )
    assert check.is_valid({"to the/end~": [1, 2.5]})
    assert not check.is_valid({"to the/end~": ["one"]})


# Older tools


def test_a_schema_in_words_of_openapi_3_0() -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"const": "run"},
            "n": {"type": ["integer", "null"], "exclusiveMinimum": 0},
            "either": {"type": ["object", "array"]},
            "nothing": {"type": "null"},
            "more": {"$ref": "#/components/schemas/X/$defs/Y", "description": "Why."},
            "any": True,
        },
        "required": [],
        "propertyNames": {"maxLength": 3},
        "examples": [{"n": 1}],
    }
    assert as_openapi_3_0(schema) == {
        "type": "object",
        "properties": {
            "type": {"enum": ["run"]},
            "n": {"type": "integer", "nullable": True, "minimum": 0, "exclusiveMinimum": True},
            "either": {"anyOf": [{"type": "object"}, {"type": "array", "items": {}}]},
            "nothing": {"enum": [None]},
            "more": {"allOf": [{"$ref": "#/components/schemas/X/x-defs/Y"}], "description": "Why."},
            "any": {},
        },
        "example": {"n": 1},
    }


def test_no_property_is_an_enum_where_a_hook_would_rename_it() -> None:
    colours = {"enum": ["red", "blue"]}
    schema = {"properties": {"one": colours, "several": {"type": "array", "items": colours}, "any": True}}
    assert hidden_from_enum_hook(schema) == {
        "properties": {
            "one": {"allOf": [colours]},
            "several": {"type": "array", "items": {"allOf": [colours]}},
            "any": {},
        }
    }
