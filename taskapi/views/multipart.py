"""Requests with files in them: each file goes to a temporary file as it comes, and is refused once it is too large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request

from taskapi.conf import settings
from taskapi.params.values import MAX_SENTENCES, NO_NAME, echo
from taskapi.protocol import decode
from taskapi.runs.refusals import FileTooLarge

FIELDS = ("task", "inputs")
PLACE = "inputs."  # the names of the parts that are files begin with it
BESIDE = 2**16  # bytes of a request beside its one file


class Parser(MultiPartParser):
    """REST framework's, but a request with too many parts gets 400: Django answers it with a page of its own."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except SuspiciousOperation as error:
            raise ParseError(str(error)) from None


class Bound(FileUploadHandler):
    """Refuses a file as soon as it has more than `upload_bytes`."""

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self._others = request.upload_handlers

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self._received = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._received += len(raw_data)
        if self._received > settings.upload_bytes:
            for handler in self._others:  # Django forgets the file that was being received
                handler.upload_interrupted()
            raise FileTooLarge
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """The handlers that follow have the file."""


def bound_files(request: HttpRequest) -> None:
    """Bound the files of a request. Call it before anything reads the body: the CSRF check does."""
    if not hasattr(request, "_files"):  # else middleware of the project has read it
        request.upload_handlers.insert(0, Bound(request))


def refuse_long(request: HttpRequest) -> None:
    """FileTooLarge if a request with one file says that it is longer than that file may be."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdecimal() and int(length) > settings.upload_bytes + BESIDE:
        raise FileTooLarge


def call_in(request: Request) -> dict[str, Any]:
    """The call of a request with files in place, as JSON has it: without the files."""
    fields = request.POST
    wrong = [name for name in fields if name not in FIELDS or len(fields.getlist(name)) > 1]
    wrong += [name for name in request.FILES if not name.startswith(PLACE)]
    if wrong:
        expected = f"Expected the fields `task` and `inputs`, each once, and files that are named `{PLACE}NAME`."
        raise ValidationError({NO_NAME: [f"{expected} Got {', '.join(map(echo, wrong[:MAX_SENTENCES]))}."]})
    call = dict(fields.items())
    if "inputs" in call:
        call["inputs"] = _decode(call["inputs"])
    return call


def with_files(inputs: Any, request: Request) -> Any:
    """The inputs of the call, and the files of the request among them."""
    given = {} if inputs is None else inputs
    if request.FILES and not isinstance(given, dict):
        raise ValidationError({"inputs": [f"Expected a JSON object. Got {type(given).__name__}."]})
    for part in request.FILES:
        name, files = part.removeprefix(PLACE), request.FILES.getlist(part)
        if name in given:
            raise ValidationError({"inputs": {name: [f"It is given twice: in `inputs`, and as `{part}`."]}})
        for file in files:
            refuse_large(file)
        given = {**given, name: files[0] if len(files) == 1 else files}
    return given


def _decode(text: Any) -> Any:
    try:
        return decode(str(text))
    except (ValueError, RecursionError):
        raise ValidationError({"inputs": ["Expected JSON."]}) from None


def refuse_large(file: UploadedFile[Any]) -> None:
    """FileTooLarge if middleware of the project has read the request, and so has not bounded its files."""
    if file.size is not None and file.size > settings.upload_bytes:
        raise FileTooLarge
