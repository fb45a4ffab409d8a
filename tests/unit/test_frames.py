"""The server writes and reads frames as the golden frames of tests/frames show; the TypeScript tests read them too."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rest_framework import exceptions

from taskapi import protocol
from taskapi.models import TaskInfo
from taskapi.runs.refusals import as_protocol_error

FRAMES = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.parent.glob("frames/*.json")}
CLIENT = {name: golden["frame"] for name, golden in FRAMES.items() if golden["direction"] == "client"}
SERVER = {name: golden["frame"] for name, golden in FRAMES.items() if golden["direction"] == "server"}

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", CLIENT)
def test_a_client_frame_is_read_with_every_field(name: str) -> None:
    golden = dict(CLIENT[name])
    frame = protocol.parse(json.dumps(golden))
    assert type(frame).__name__.lower() == golden.pop("type")
    for field, value in golden.items():
        read = getattr(frame, field)
        assert (str(read) if isinstance(read, UUID) else read) == value


def test_a_run_that_is_not_found_for_nobody_is_answered_as_its_golden_frame() -> None:
    golden = SERVER["error-not-found-anonymous"]
    refusal = as_protocol_error(exceptions.NotFound(code="not_authenticated"), golden["ref"])
    assert (refusal.code, refusal.detail, refusal.reason) == (golden["code"], golden["detail"], golden["reason"])


@pytest.mark.parametrize("name", ["snapshot-omitted", "finished-omitted"])
def test_what_a_frame_leaves_out_is_named_as_in_its_golden_frame(name: str) -> None:
    golden = SERVER[name]
    large = {field: {"a": "x" * 20_000} for field in golden["task"]["omitted"]}
    whole = {**golden, "task": {**golden["task"], **large}}
    del whole["task"]["omitted"]
    assert json.loads(protocol.within(json.dumps(whole), 10_000)) == golden


def test_a_message_that_does_not_fit_is_written_as_its_golden_frame() -> None:
    golden = SERVER["message-omitted"]
    event = protocol.message_event(UUID(golden["uuid"]), 1, golden["seq"], golden["index"], "x" * 20_000)
    assert json.loads(protocol.within(event.text, 10_000)) == golden


def test_a_snapshot_with_a_part_of_the_messages_is_written_as_its_golden_frame() -> None:
    golden = SERVER["snapshot-partial"]
    info = _info({**golden["task"], "seq": 1000000099})
    rows = [protocol.Message(2, 1, 1000000009, "two"), protocol.Message(3, 1, 1000000010, "x" * 20_000)]
    answer = protocol.reply("snapshot", golden["ref"])
    assert json.loads(protocol.snapshot(answer, info, 2, rows, 10_000).text) == golden


@pytest.mark.parametrize("name", ["accepted", "snapshot", "unsubscribed", "cancelling", "pong", "error-invalid-inputs"])
def test_an_answer_is_written_as_its_golden_frame(name: str) -> None:
    golden = SERVER[name]
    fields = {key: value for key, value in golden.items() if key not in ("type", "ref")}
    if "task" in fields:
        info = _info(fields["task"])
        fields["task"] = protocol.represent(info, fields["task"]["messages"])
    assert json.loads(protocol.encode(protocol.reply(golden["type"], golden["ref"], **fields))) == golden


@pytest.mark.parametrize("name", ["status", "target", "progress", "message", "message-json"])
def test_an_event_is_written_as_its_golden_frame(name: str) -> None:
    golden = dict(SERVER[name])
    kind, uuid = golden.pop("type"), UUID(golden.pop("uuid"))
    event = getattr(protocol, f"{kind}_event")(uuid, **golden)
    assert json.loads(event.text) == SERVER[name]
    assert event.seq == golden["seq"]


@pytest.mark.parametrize("name", ["finished", "finished-failed"])
def test_the_end_is_written_as_its_golden_frame(name: str) -> None:
    golden = SERVER[name]
    assert json.loads(protocol.finished_event(_info(golden["task"])).text) == golden


def test_every_kind_of_frame_has_a_golden_one() -> None:
    assert {golden["type"] for golden in CLIENT.values()} == set(protocol.PARSERS)
    answers = {"accepted", "snapshot", "unsubscribed", "cancelling", "pong", "error"}
    events = {"status", "target", "progress", "message", "finished"}
    assert {golden["type"] for golden in SERVER.values()} == answers | events


def _info(rep: dict[str, Any]) -> TaskInfo:
    fields = {name: value for name, value in rep.items() if name != "messages"}
    moments = {
        name: fields[name] and datetime.fromisoformat(fields[name]) for name in ("created", "started", "finished")
    }
    return TaskInfo(**fields | moments | {"uuid": UUID(rep["uuid"])})


def test_a_time_is_written_in_utc() -> None:
    assert protocol.timestamp(NOON) == "2026-11-22T12:00:00Z"
    assert protocol.timestamp(NOON.astimezone(timezone(timedelta(hours=2)))) == "2026-11-22T12:00:00Z"
