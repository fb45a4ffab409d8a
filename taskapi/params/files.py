"""Files: on the way in an upload, on the way out a file that a task returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.files import File
from django.utils.functional import Promise
from rest_framework.exceptions import ValidationError

from taskapi.exceptions import TaskError
from taskapi.params.base import Parameter, nullable
from taskapi.params.context import current_context, describes_outputs
from taskapi.params.labels import content_type_of, is_of_type
from taskapi.params.values import echo, null_refused

NO_SUCH_UPLOAD = "There is no such upload. One that no run uses is kept for a day."
EXPECTED = 'Expected a file that was uploaded, as {"upload": REFERENCE}.'
ANSWERED = {"upload", "name", "size", "content_type"}  # an answer of `POST tasks/uploads/` is taken as it is


class FileParameter(Parameter):
    """A file. `run` gets a Django `File`, with a `content_type`; a task that has such an output returns one.

    `max_bytes` bounds its size. `content_types` are those that it may have, such as "text/csv" or "image/*": as the
    sender says, which proves nothing about what is in it.
    """

    max_bytes: int | None = None
    content_types: tuple[str, ...] | None = None

    def __init__(
        self,
        required: bool = True,
        *,
        max_bytes: int | None = None,
        content_types: Iterable[str] | None = None,
        help_text: str | Promise = "",
        allow_null: bool = False,
    ) -> None:
        super().__init__(required, help_text=help_text, allow_null=allow_null)
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
            raise TypeError(f"FileParameter: `max_bytes` is a whole number of bytes, not {max_bytes!r}.")
        if isinstance(content_types, str):
            raise TypeError(f"FileParameter: `content_types` is a list, as in [{content_types!r}].")
        self.max_bytes = max_bytes
        self.content_types = None if content_types is None else tuple(kind.lower() for kind in content_types)

    def to_python(self, value: Any) -> Any:
        if value is None:
            if not self.allow_null:
                raise null_refused()
            return None
        file = self._file(value)
        self._check(file)
        return file

    def to_json(self, value: Any) -> Any:
        file = self.to_python(value)
        if file is None:
            return None
        files = current_context().files
        if files is None:
            raise ValidationError("A file can be given only as an input of a run, or returned by one.")
        return files.to_json(file)

    def json_schema(self) -> dict[str, Any]:
        schema = _RETURNED if describes_outputs.get() else _UPLOADED
        limits = {
            **({} if self.max_bytes is None else {"x-max-bytes": self.max_bytes}),
            **({} if self.content_types is None else {"x-content-types": list(self.content_types)}),
        }
        described = {**schema, **limits}
        return (nullable(described) if self.allow_null else described) | super().json_schema()

    def _file(self, value: Any) -> File[Any]:
        if isinstance(value, File):
            return value
        if hasattr(value, "read"):  # Python's own: no JSON has one
            return File(value, getattr(value, "name", None))
        if not isinstance(value, Mapping) or not isinstance(value.get("upload"), str) or not value.keys() <= ANSWERED:
            got = f"Got {type(value).__name__}." if not isinstance(value, Mapping) else f"Got {echo(dict(value))}."
            raise ValidationError(f"{EXPECTED} {got}")
        context = current_context()
        found = context.files.find(value["upload"]) if context.files is not None else None
        if found is None and context.run is not None:
            raise TaskError("A file among the inputs of this run is not there any more.")
        if found is None:
            raise ValidationError(NO_SUCH_UPLOAD, code="not_found")
        return found

    def _check(self, file: File[Any]) -> None:
        if self.max_bytes is not None:
            size = _size_of(file)
            if size is None or size > self.max_bytes:
                got = "a stream, whose size is not known" if size is None else size
                raise ValidationError(f"Expected a file of {self.max_bytes} bytes at most. Got {got}.", "max_bytes")
        if self.content_types is None:
            return
        kind = content_type_of(file)
        if not any(is_of_type(kind, expected) for expected in self.content_types):
            raise ValidationError(f"Expected a file of type {', '.join(self.content_types)}. Got {kind}.", "type")


def _size_of(file: File[Any]) -> int | None:
    try:
        return file.size
    except (AttributeError, OSError):  # what Django's raises for a stream
        return None


_UPLOADED = {
    "type": "object",
    "format": "file",
    "properties": {
        "upload": {"type": "string"},
        "name": {"type": "string"},
        "size": {"type": "integer"},
        "content_type": {"type": "string"},
    },
    "required": ["upload"],
    "additionalProperties": False,
}
_RETURNED = {
    "type": "object",
    "format": "file",
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "integer"},
        "content_type": {"type": "string"},
        "url": {"type": ["string", "null"], "format": "uri-reference"},
    },
    "required": ["name", "size", "content_type", "url"],
    "additionalProperties": False,
}
