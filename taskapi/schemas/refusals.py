"""How a refusal reads, in REST and in an `error` frame."""

from __future__ import annotations

from taskapi.schemas.parts import TEXT, Schema, record, ref, said

#: The codes of an `error` frame (docs/protocol.md).
ERROR_CODES = (
    "invalid_json",
    "invalid_frame",
    "unknown_type",
    "unknown_task",
    "invalid_inputs",
    "not_authenticated",
    "authentication_failed",
    "permission_denied",
    "not_found",
    "conflict",
    "throttled",
    "unavailable",
)

_SENTENCES: Schema = {"type": "array", "items": TEXT, "minItems": 1}
_BY_NAME: Schema = {"type": "object", "additionalProperties": _SENTENCES}
_SENTENCES_OR_BY_NAME: Schema = {"anyOf": [_SENTENCES, _BY_NAME]}

_FIELDS: dict[str, Schema] = {
    "task": _SENTENCES,
    "inputs": said(_SENTENCES_OR_BY_NAME, "By the name of the input."),
    "many": said(
        {"anyOf": [_SENTENCES, {"type": "object", "additionalProperties": _SENTENCES_OR_BY_NAME}]},
        "By the index of the inputs in the list, and then by the name of the input.",
    ),
    "Idempotency-Key": _SENTENCES,
    "after": _SENTENCES,
    "format": _SENTENCES,
    "owner": _SENTENCES,
    "status": _SENTENCES,
    "non_field_errors": _SENTENCES,
}

DEFINITIONS: dict[str, Schema] = {
    "TaskFieldErrors": {
        "type": "object",
        "description": "What is wrong, by the name of the field that is at fault.",
        "properties": _FIELDS,
        "minProperties": 1,
        "additionalProperties": False,
    },
    "TaskRefusal": record(
        {"detail": said(TEXT, "A sentence for people."), "code": said(TEXT, "A word for programs.")},
        description="Why the caller does not get what it asked for.",
    ),
    "TaskProblem": {
        "type": "object",
        "description": "Problem details (RFC 9457), with the fields that `application/json` has.",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "instance": {"type": "string", "format": "uri-reference"},
            "code": TEXT,
            "errors": said(_SENTENCES, "What is wrong, where it has no name."),
            **{name: schema for name, schema in _FIELDS.items() if name != "status"},
        },
        "required": ["type", "title", "status", "detail"],
    },
    "TaskRefusalDetail": {
        "anyOf": [TEXT, ref("TaskFieldErrors")],
        "description": "What REST would have answered: its sentence, or its fields.",
    },
}
