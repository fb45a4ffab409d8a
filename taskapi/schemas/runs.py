"""The representation of a run, as REST answers it and as frames show it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from taskapi.protocol import TASK_LENGTH
from taskapi.protocol.fitting import OMITTABLE
from taskapi.protocol.states import FINAL, ErrorCode, Status
from taskapi.schemas.parts import COUNT, NULL, OBJECT, TEXT, TIME, UUID, Schema, one_of, record, ref, said

_NUMBER: Schema = {"type": ["integer", "null"]}

_FIELDS: Mapping[str, Schema] = {
    "uuid": UUID,
    "task": said({**TEXT, "maxLength": TASK_LENGTH}, "The name of the task."),
    "status": one_of([status.value for status in Status]),
    "progress": said(_NUMBER, "How far the work has come; null before it says so."),
    "target": said(_NUMBER, "The progress at which the work is done; null if it is not known."),
    "inputs": said(OBJECT, "In the form that the task's parameters give, without defaults."),
    "outputs": said({"type": ["object", "null"]}, "Null before there are any."),
    "messages": {"type": "array", "items": {}, "description": "Without those that the caller says it knows (`after`)."},
    "message_count": said(COUNT, "How many messages there are in all."),
    "error": {"anyOf": [ref("TaskRunError"), NULL]},
    "attempt": said(COUNT, "Executions so far."),
    "seq": said(COUNT, "The number of this state: it grows with every change of the run."),
    "cancel_requested": {"type": "boolean"},
    "created": TIME,
    "started": {"type": ["string", "null"], "format": "date-time"},
    "finished": {"type": ["string", "null"], "format": "date-time"},
    "hint": ref("TaskRunHint"),
}

#: What a run is at each stage of its life, where that is more than `_FIELDS` says.
_STAGES: Mapping[str, tuple[Collection[Status], Mapping[str, Schema]]] = {
    "Unfinished": ((Status.PENDING, Status.RUNNING), {"outputs": NULL, "error": NULL, "finished": NULL}),
    "Succeeded": ((Status.SUCCEEDED,), {"outputs": OBJECT, "error": NULL, "finished": TIME}),
    "Failed": ((Status.FAILED,), {"outputs": NULL, "error": ref("TaskRunError"), "finished": TIME}),
    "Cancelled": ((Status.CANCELLED,), {"outputs": NULL, "error": NULL, "finished": TIME}),
}


def _omitted(names: Collection[str]) -> Schema:
    return {
        "type": "array",
        "items": one_of(names),
        "minItems": 1,
        "uniqueItems": True,
        "description": "What is left out because it is too large here. GET tasks/{uuid}/ has it.",
    }


def _stage(name: str, without: Collection[str] = (), omittable: Collection[str] = ()) -> Schema:
    """A run at this stage of its life; `without`: fields that are never shown; `omittable`: those that may not fit."""
    statuses, special = _STAGES[name]
    fields = {**_FIELDS, **special, "status": one_of([status.value for status in statuses])}
    if FINAL.issuperset(statuses):
        without = {*without, "hint"}
    shown = {field: schema for field, schema in fields.items() if field not in without}
    if not omittable:
        return record(shown, optional=("hint",))
    return record({**shown, "omitted": _omitted(omittable)}, optional=("hint", "omitted", *omittable))


def _by_status(suffix: str, stages: Collection[str] = tuple(_STAGES)) -> Schema:
    return {
        "oneOf": [ref(f"{stage}{suffix}") for stage in stages],
        "discriminator": {
            "propertyName": "status",
            "mapping": {
                status.value: ref(f"{stage}{suffix}")["$ref"] for stage in stages for status in _STAGES[stage][0]
            },
        },
    }


_FINAL_STAGES = [stage for stage, (statuses, _) in _STAGES.items() if FINAL.issuperset(statuses)]

DEFINITIONS: dict[str, Schema] = {
    "TaskRunError": record(
        {
            "code": {
                **TEXT,
                "description": "Why the run failed, in a word.",
                "examples": [code.value for code in ErrorCode],
            },
            "message": TEXT,
        }
    ),
    "TaskRunHint": record(
        {"code": one_of(["no_worker"]), "message": TEXT},
        description="What a developer should know of a run that waits.",
    ),
    **{f"{stage}TaskRun": _stage(stage) for stage in _STAGES},
    "TaskRun": said(_by_status("TaskRun"), "A run. Its `outputs` are those of its task: see the schema of that name."),
    **{f"{stage}TaskRunListed": _stage(stage, (), (*OMITTABLE, "messages")) for stage in _STAGES},
    "TaskRunListed": said(_by_status("TaskRunListed"), "A run as a list has it: large values are left out."),
    **{f"{stage}TaskRunShown": _stage(stage, (), OMITTABLE) for stage in _STAGES},
    "TaskRunShown": said(_by_status("TaskRunShown"), "A run as a frame shows it: large values are left out."),
    **{f"{stage}TaskRunEnd": _stage(stage, ("messages", "inputs"), OMITTABLE[1:]) for stage in _FINAL_STAGES},
    "TaskRunEnd": said(
        _by_status("TaskRunEnd", _FINAL_STAGES), "A run that has ended, without its messages and inputs."
    ),
}
