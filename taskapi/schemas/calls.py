"""The calls of REST, as OpenAPI says them: parameters, bodies, answers and their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from taskapi.protocol.states import Status
from taskapi.schemas.frames import EVENTS, KEY
from taskapi.schemas.parts import COUNT, OBJECT, TEXT, UUID, Schema, one_of, record, ref, said

JSON = "application/json"
PROBLEM = "application/problem+json"  # RFC 9457
EVENT_STREAM = "text/event-stream"

_LONGEST_WAIT = 60  # seconds, of `Prefer: wait`


class Call(NamedTuple):
    """One call: the end of its path, its method, and its operation."""

    path: str
    method: str
    operation: dict[str, Any]


def _header(description: str, schema: Schema = TEXT) -> dict[str, Any]:
    return {"description": description, "schema": schema}


def _shown(*headers: str) -> dict[str, Any]:
    return {name: ref(name, "headers") for name in headers}


def _answer(description: str, content: Mapping[str, Any] | None = None, *headers: str) -> dict[str, Any]:
    body = {} if content is None else {"content": dict(content)}
    return {"description": description, "headers": _shown("Cache-Control", *headers), **body}


def _json(schema: Schema) -> dict[str, Any]:
    return {JSON: {"schema": schema}}


def _refusal(description: str, *headers: str, schema: Schema | None = None) -> dict[str, Any]:
    content = {
        JSON: {"schema": ref("TaskRefusal") if schema is None else schema},
        PROBLEM: {"schema": ref("TaskProblem")},
    }
    return {"description": description, "headers": _shown("Cache-Control", *headers), "content": content}


def _as_html_too(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "content": {**answer["content"], "text/html": {"schema": TEXT}}}


_FIELDS_OR_DETAIL: Schema = {"anyOf": [ref("TaskFieldErrors"), ref("TaskRefusal")]}

HEADERS: dict[str, dict[str, Any]] = {
    "Cache-Control": _header("`no-store`: what is answered changes, or is another caller's."),
    "Location": _header("The URL of the run.", {"type": "string", "format": "uri-reference"}),
    "ETag": _header("The state of the run, for `If-None-Match`."),
    "Retry-After": _header("Ask again after so many seconds.", {"type": "integer", "minimum": 0}),
    "Preference-Applied": _header("The `Prefer` that was kept (RFC 7240)."),
    "RateLimit": _header("What is left for this caller."),
    "RateLimit-Policy": _header("How much this caller may do in how much time."),
    "WWW-Authenticate": _header("How the caller may say who it is."),
}

RESPONSES: dict[str, dict[str, Any]] = {
    "TaskInvalid": _refusal(
        "The call is not one that can be served: fields are wrong, or the body cannot be read.",
        schema=_FIELDS_OR_DETAIL,
    ),
    "TaskUnauthenticated": _refusal(
        "The caller has to say who it is. Without a challenge of the project's own, this is 403.", "WWW-Authenticate"
    ),
    "TaskForbidden": _refusal("The caller may not do this, or has to log in first."),
    # Django itself refuses a path that has no uuid, with the page of the project.
    "TaskNotFound": _as_html_too(
        _refusal(
            "There is no such run, or it is somebody else's. Or there is no such page of a list, or no such `format`."
        )
    ),
    "TaskNotAcceptable": _refusal("No form that the caller accepts is one that the server can write."),
    "TaskConflict": _refusal("The state of the run does not allow this."),
    "TaskTooLarge": _refusal("The body is too large."),
    "TaskUnsupported": _refusal("The body is of a type that the server does not read."),
    "TaskKeyUsed": _refusal("The idempotency key was used before, with other inputs."),
    "TaskThrottled": _refusal("Too soon.", "Retry-After", "RateLimit", "RateLimit-Policy"),
    "TaskUnavailable": _refusal("The server cannot do it now.", "Retry-After"),
    "TaskNotInstalled": _refusal("The server lacks the package that writes this document."),
}

_NAMES: Mapping[str, str] = {
    "400": "TaskInvalid",
    "401": "TaskUnauthenticated",
    "403": "TaskForbidden",
    "404": "TaskNotFound",
    "406": "TaskNotAcceptable",
    "409": "TaskConflict",
    "413": "TaskTooLarge",
    "415": "TaskUnsupported",
    "422": "TaskKeyUsed",
    "429": "TaskThrottled",
    "501": "TaskNotInstalled",
    "503": "TaskUnavailable",
}


_OF_ALL = ("401", "403", "404", "406", "503")


def _refusals(*statuses: str) -> dict[str, Any]:
    """The refusals with these statuses, and those that every call may be answered with."""
    return {status: ref(_NAMES[status], "responses") for status in sorted({*statuses, *_OF_ALL})}


def _query(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_header(name: str, description: str, schema: Schema = TEXT) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_PREFER_WAIT = f"`wait=S`: answer when the run has changed, or after S seconds (at most {_LONGEST_WAIT})."

PARAMETERS: dict[str, dict[str, Any]] = {
    "TaskRunUuid": {"name": "uuid", "in": "path", "required": True, "description": "The run.", "schema": UUID},
    "TaskAfter": _query(
        "after", "How many messages the caller has already.", {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    ),
    "TaskPrefer": _in_header("Prefer", _PREFER_WAIT),
    "TaskIfNoneMatch": _in_header("If-None-Match", "The `ETag` of the state that the caller knows."),
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
    "requestBody": {"required": True, "content": _json({"oneOf": [ref("TaskStart"), ref("TaskStartMany")]})},
    "responses": {
        "200": _answer(
            "The run of an idempotency key that was used before.", _json(_ONE_OR_MANY), "Location", *_RUN_HEADERS
        ),
        "201": {
            **_answer("The run, or the runs.", _json(_ONE_OR_MANY), "Location", *_RUN_HEADERS),
            "links": _LINKS,  # of one run
        },
        **_refusals("400", "413", "415", "422", "429"),
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
                    {"contentMediaType": "text/html", "pattern": "^\\s*<", "description": "With `format=html`."},
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
    "responses": {"200": _answer("A page.", _json(ref("TaskRunPage"))), **_refusals("400")},
}

_TYPES = {
    "operationId": "tasks_types",
    "summary": "The tasks that the caller may run",
    "responses": {
        "200": _answer("The tasks.", _json({"type": "array", "items": ref("TaskType")})),
        **_refusals(),
    },
}

_RUN = {
    "operationId": "tasks_run",
    "summary": "Look at a run",
    "parameters": _parameters("TaskRunUuid", "TaskAfter", "TaskIfNoneMatch", "TaskPrefer"),
    "responses": {
        "200": _answer("The run.", _json(ref("TaskRun")), *_RUN_HEADERS),
        "304": _answer("The run is as `If-None-Match` says.", None, *_RUN_HEADERS),
        **_refusals("400"),
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
        "200": _answer("The stream.", {EVENT_STREAM: {"schema": ref("TaskServerSentEvent")}}),
        **{status: _as_html_too(RESPONSES[_NAMES[status]]) for status in _refusals("400")},
    },
}

_CANCEL = {
    "operationId": "tasks_cancel",
    "summary": "Ask a run to stop",
    "parameters": _parameters("TaskRunUuid"),
    "responses": {
        "202": _answer("The request is recorded.", _json(ref("TaskRun")), *_RUN_HEADERS),
        **_refusals("409", "429"),
    },
}

_RETRY = {
    "operationId": "tasks_retry",
    "summary": "Start a run that has ended again, as a new run",
    "parameters": _parameters("TaskRunUuid"),
    "responses": {
        "202": {**_answer("The new run.", _json(ref("TaskRun")), "Location", *_RUN_HEADERS), "links": _LINKS},
        **_refusals("400", "409", "429"),
    },
}


def _document(operation_id: str, summary: str, *media_types: str, statuses: tuple[str, ...] = ()) -> dict[str, Any]:
    content = {media_type: {"schema": OBJECT} for media_type in media_types}
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": _answer("The document.", content), **_refusals(*statuses)},
    }


OPENAPI_JSON = "application/vnd.oai.openapi+json"
ASYNCAPI_JSON = "application/vnd.aai.asyncapi+json"

CALLS = (
    Call("tasks/", "GET", _LIST),
    Call("tasks/", "POST", _START),
    Call("tasks/types/", "GET", _TYPES),
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
    Call("tasks/{uuid}/cancel/", "POST", _CANCEL),
    Call("tasks/{uuid}/retry/", "POST", _RETRY),
)
