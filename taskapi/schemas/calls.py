"""The calls of REST, as OpenAPI says them: parameters, bodies, and what each is answered with."""

from __future__ import annotations

from typing import Any, NamedTuple

from taskapi.protocol import LONGEST_WAIT
from taskapi.protocol.states import Status
from taskapi.schemas import files
from taskapi.schemas.answers import JSON, NAMES, RESPONSES, answer, as_html_too, as_json, refusals
from taskapi.schemas.frames import EVENTS, KEY
from taskapi.schemas.parts import COUNT, OBJECT, TEXT, UUID, Schema, one_of, record, ref, said

EVENT_STREAM = "text/event-stream"


class Call(NamedTuple):
    """One call: the end of its path, its method, and its operation."""

    path: str
    method: str
    operation: dict[str, Any]


def _query(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_header(name: str, description: str, schema: Schema = TEXT) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_PREFER_WAIT = f"`wait=S`: answer when the run has changed, or after S seconds (at most {LONGEST_WAIT})."

PARAMETERS: dict[str, dict[str, Any]] = {
    "TaskRunUuid": {"name": "uuid", "in": "path", "required": True, "description": "The run.", "schema": UUID},
    "TaskAfter": _query(
        "after", "How many messages the caller has already.", {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    ),
    "TaskPrefer": _in_header("Prefer", _PREFER_WAIT),
    "TaskIfNoneMatch": _in_header("If-None-Match", "The `ETag` of the state that the caller knows."),
    "TaskFileReference": files.REFERENCE,
    "TaskIdempotencyKey": _in_header("Idempotency-Key", "The same caller, task and key give the same run.", KEY),
}


def _parameters(*names: str) -> list[dict[str, Any]]:
    return [ref(name, "parameters") for name in names]


#: What may follow a call that answers with one run.
_LINKS = {
    name: {"operationId": f"tasks_{name}", "parameters": {"uuid": "$response.body#/uuid"}}
    for name in ("run", "events", "cancel", "retry")
}

_RUN_HEADERS = ("ETag", "Retry-After", "Preference-Applied")
_ONE_OR_MANY: Schema = {"oneOf": [ref("TaskRun"), {"type": "array", "items": ref("TaskRunListed")}]}

_START = {
    "operationId": "tasks_start",
    "summary": "Start a run, or many",
    "description": "With `many`, all of the runs are started, or none. The inputs are those that the task declares; "
    'what can be read as such is taken too (`"6"` for 6).',
    "parameters": _parameters("TaskIdempotencyKey", "TaskPrefer"),
    "requestBody": {
        "required": True,
        "content": {
            **as_json({"oneOf": [ref("TaskStart"), ref("TaskStartMany")]}),
            files.MULTIPART: {"schema": files.START_IN_PARTS},
        },
    },
    "responses": {
        "200": answer(
            "The run of an idempotency key that was used before.", as_json(_ONE_OR_MANY), "Location", *_RUN_HEADERS
        ),
        "201": {
            **answer("The run, or the runs.", as_json(_ONE_OR_MANY), "Location", *_RUN_HEADERS),
            "links": _LINKS,  # of one run
        },
        **refusals("400", "413", "415", "422", "429"),
    },
}

DEFINITIONS: dict[str, Schema] = {
    "TaskType": record(
        {
            "name": TEXT,
            "description": TEXT,
            "inputs": said(OBJECT, "JSON Schema."),
            "outputs": said(OBJECT, "JSON Schema."),
        }
    ),
    "TaskServerSentEvent": record(
        {
            "event": one_of([*EVENTS, "snapshot", "error"]),
            "data": {
                **TEXT,
                "anyOf": [
                    {"contentMediaType": JSON, "contentSchema": ref("TaskStreamEvent")},
                    {"contentMediaType": "text/html", "pattern": r"^\s*[^{\s]", "description": "With `format=html`."},
                ],
            },
            "id": said(TEXT, "For `Last-Event-ID`."),
            "retry": said(COUNT, "Milliseconds after which a client that was cut off should come back."),
        },
        ("event", "data", "id", "retry"),
    ),
    "TaskRunPage": record(
        {
            "next": {"type": ["string", "null"], "format": "uri"},
            "previous": {"type": ["string", "null"], "format": "uri"},
            "results": {"type": "array", "items": ref("TaskRunListed")},
        }
    ),
}

_LIST = {
    "operationId": "tasks_list",
    "summary": "The caller's runs, the newest first",
    "parameters": [
        _query("task", "Only the runs of this task.", TEXT),
        _query("status", "Only the runs with this status.", one_of([status.value for status in Status])),
        _query("owner", "`all`: the runs of everybody, for staff.", one_of(["all"])),
        _query("page_size", "How many runs a page has at most.", {"type": "integer", "minimum": 1}),
        _query("cursor", "Where a page begins; `next` and `previous` have it.", TEXT),
    ],
    "responses": {"200": answer("A page.", as_json(ref("TaskRunPage"))), **refusals("400")},
}

_TYPES = {
    "operationId": "tasks_types",
    "summary": "The tasks that the caller may run",
    "responses": {
        "200": answer("The tasks.", as_json({"type": "array", "items": ref("TaskType")})),
        **refusals(),
    },
}

_RUN = {
    "operationId": "tasks_run",
    "summary": "Look at a run",
    "parameters": _parameters("TaskRunUuid", "TaskAfter", "TaskIfNoneMatch", "TaskPrefer"),
    "responses": {
        "200": answer("The run.", as_json(ref("TaskRun")), *_RUN_HEADERS),
        "304": answer("The run is as `If-None-Match` says.", None, *_RUN_HEADERS),
        **refusals("400"),
    },
}

_EVENTS = {
    "operationId": "tasks_events",
    "summary": "Follow a run, by server-sent events",
    "description": "First a `snapshot`, then the events of the WebSocket, each as the data of an event that is called "
    "as its `type`. The server ends the stream after `finished`.",
    "parameters": [
        *_parameters("TaskRunUuid", "TaskAfter"),
        _in_header("Last-Event-ID", "The id of the last event that the caller has: the stream goes on after it."),
        _query("format", "`html`: the data is HTML, for htmx.", one_of(["json", "html"])),
    ],
    "responses": {
        # OpenAPI 3.1 has no word for the items of a stream: tools read the schema as that of one event.
        "200": answer("The stream.", {EVENT_STREAM: {"schema": ref("TaskServerSentEvent")}}),
        **{status: as_html_too(RESPONSES[NAMES[status]]) for status in refusals("400")},
    },
}

_CANCEL = {
    "operationId": "tasks_cancel",
    "summary": "Ask a run to stop",
    "parameters": _parameters("TaskRunUuid"),
    "responses": {
        "202": answer("The request is recorded.", as_json(ref("TaskRun")), *_RUN_HEADERS),
        **refusals("409"),
    },
}

_RETRY = {
    "operationId": "tasks_retry",
    "summary": "Start a run that has ended again, as a new run",
    "parameters": _parameters("TaskRunUuid"),
    "responses": {
        "202": {**answer("The new run.", as_json(ref("TaskRun")), "Location", *_RUN_HEADERS), "links": _LINKS},
        **refusals("400", "409", "429"),
    },
}


def _document(operation_id: str, summary: str, *media_types: str, statuses: tuple[str, ...] = ()) -> dict[str, Any]:
    content = {media_type: {"schema": OBJECT} for media_type in media_types}
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": answer("The document.", content), **refusals(*statuses)},
    }


OPENAPI_JSON = "application/vnd.oai.openapi+json"
ASYNCAPI_JSON = "application/vnd.aai.asyncapi+json"

CALLS = (
    Call("tasks/", "GET", _LIST),
    Call("tasks/", "POST", _START),
    Call("tasks/types/", "GET", _TYPES),
    Call("tasks/uploads/", "POST", files.UPLOAD),
    Call(
        "tasks/openapi.json",
        "GET",
        _document("tasks_openapi", "The OpenAPI document of these calls", JSON, OPENAPI_JSON, statuses=("501",)),
    ),
    Call(
        "tasks/asyncapi.json",
        "GET",
        _document("tasks_asyncapi", "The AsyncAPI document of the WebSocket", JSON, ASYNCAPI_JSON),
    ),
    Call("tasks/{uuid}/", "GET", _RUN),
    Call("tasks/{uuid}/events/", "GET", _EVENTS),
    Call("tasks/{uuid}/files/{reference}/", "GET", files.FILE),
    Call("tasks/{uuid}/cancel/", "POST", _CANCEL),
    Call("tasks/{uuid}/retry/", "POST", _RETRY),
)
