"""What REST answers: the refusals of all calls, headers, and how an answer is written in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskapi.schemas.parts import TEXT, Schema, ref

JSON = "application/json"
PROBLEM = "application/problem+json"  # RFC 9457


def _header(description: str, schema: Schema = TEXT) -> dict[str, Any]:
    return {"description": description, "schema": schema}


def _shown(*headers: str) -> dict[str, Any]:
    return {name: ref(name, "headers") for name in headers}


def answer(description: str, content: Mapping[str, Any] | None = None, *headers: str) -> dict[str, Any]:
    """An answer with this content, by media type, and these headers of `HEADERS`."""
    body = {} if content is None else {"content": dict(content)}
    return {"description": description, "headers": _shown("Cache-Control", *headers), **body}


def as_json(schema: Schema) -> dict[str, Any]:
    """The content of a body in JSON."""
    return {JSON: {"schema": schema}}


def _refusal(description: str, *headers: str, schema: Schema | None = None) -> dict[str, Any]:
    content = {
        JSON: {"schema": ref("TaskRefusal") if schema is None else schema},
        PROBLEM: {"schema": ref("TaskProblem")},
    }
    return {"description": description, "headers": _shown("Cache-Control", *headers), "content": content}


def as_html_too(refusal: dict[str, Any]) -> dict[str, Any]:
    """The refusal, which may be a page as well."""
    return {**refusal, "content": {**refusal["content"], "text/html": {"schema": TEXT}}}


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
    "TaskNotFound": as_html_too(
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

NAMES: Mapping[str, str] = {
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


def refusals(*statuses: str) -> dict[str, Any]:
    """The refusals with these statuses, and those that every call may be answered with."""
    return {status: ref(NAMES[status], "responses") for status in sorted({*statuses, *_OF_ALL})}
