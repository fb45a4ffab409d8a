"""The calls for files: one that uploads a file, one that fetches a file that a run has returned."""

from __future__ import annotations

from typing import Any

from taskapi.schemas.answers import answer, as_json, refusals
from taskapi.schemas.parts import COUNT, TEXT, Schema, record, ref, said

MULTIPART = "multipart/form-data"
_BYTES: Schema = {"type": "string", "format": "binary"}  # each version of OpenAPI knows it

_NAME = said(TEXT, "Without a path.")
_CONTENT_TYPE = said(TEXT, "As its sender says, which proves nothing.")

DEFINITIONS: dict[str, Schema] = {
    "TaskUpload": record(
        {
            "upload": said(TEXT, 'What an input that is a file takes: `{"upload": …}`, or this whole answer.'),
            "name": _NAME,
            "size": COUNT,
            "content_type": _CONTENT_TYPE,
        }
    ),
}

#: A start with files in place.
START_IN_PARTS: Schema = {
    "type": "object",
    "description": "Each file is a part that is named `inputs.NAME`; it is repeated for a list of files.",
    "properties": {"task": TEXT, "inputs": said(TEXT, "A JSON object: the inputs that are no files.")},
    "required": ["task"],
    "additionalProperties": _BYTES,
}

UPLOAD = {
    "operationId": "tasks_upload",
    "summary": "Upload a file, for a run that is started later",
    "description": "An upload that no run uses is kept for a day.",
    "requestBody": {"required": True, "content": {MULTIPART: {"schema": record({"file": _BYTES})}}},
    "responses": {
        "201": answer("The upload.", as_json(ref("TaskUpload"))),
        **refusals("400", "413", "415", "429"),
    },
}

REFERENCE: dict[str, Any] = {
    "name": "reference",
    "in": "path",
    "required": True,
    "description": "The file: the `url` in the outputs of the run has it.",
    "schema": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$"},
}

FILE = {
    "operationId": "tasks_file",
    "summary": "Fetch a file that a run has returned",
    "parameters": [ref("TaskRunUuid", "parameters"), ref("TaskFileReference", "parameters")],
    "responses": {
        "200": answer(
            "The file, to be saved.",
            {"*/*": {"schema": _BYTES}},
            "Content-Disposition",
            "Content-Security-Policy",
            "Cross-Origin-Resource-Policy",
        ),
        "302": answer("The file is at a link of the storage, for a short time.", None, "Location"),
        **refusals(),
    },
}
