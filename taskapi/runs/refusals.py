"""Why a caller is refused: one answer for each reason, as REST says it and as the socket says it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError
from django.http import Http404, HttpRequest
from rest_framework import exceptions, status
from rest_framework.request import Request

from taskapi.conf import settings
from taskapi.exceptions import (
    AlreadyFinished,
    IdempotencyConflict,
    InvalidInputs,
    NotFinished,
    ProtocolError,
    StorageUnavailable,
    TaskAPIError,
    TooManyUploads,
    UnknownTask,
)
from taskapi.models import TaskInfo
from taskapi.store.database import AWAY
from taskapi.tasks.registry import tasks

#: REST framework's sentences for a browser that has no token to send.
CSRF_UNSET = ("CSRF Failed: CSRF cookie not set.", "CSRF Failed: CSRF token missing.")
CSRF_REMEDY = (
    "Put {% task_script %} or {% csrf_token %} into the template of the page, or decorate its view with "
    "django.views.decorators.csrf.ensure_csrf_cookie."
)
#: What SQLite, PostgreSQL and MySQL say of a table or a column that is missing.
UNMIGRATED = re.compile(
    r"no such (table|column)|has no column named|Unknown column|(relation|column|table) .*(does not|doesn't) exist",
    re.IGNORECASE,
)

UNKNOWN_CALLER = exceptions.NotAuthenticated.default_code

#: All that refuses a caller. Any other exception is a fault.
REFUSALS = (TaskAPIError, exceptions.APIException, Http404, DjangoPermissionDenied, TaskInfo.DoesNotExist)


class IdempotencyKeyReused(exceptions.APIException):
    """The idempotency key was used before, with other inputs."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "conflict"


class RunStateConflict(exceptions.APIException):
    """The status of the run does not allow this: a final run cannot be cancelled, an unfinished one not retried."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class TooLarge(exceptions.APIException):
    """The body of a request is over Django's own limit."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"
    default_detail = "The request is too large: DATA_UPLOAD_MAX_MEMORY_SIZE is the server's limit."


class FileTooLarge(TooLarge):
    """A file is over the limit of the project."""

    def __init__(self) -> None:
        super().__init__(f"The file is too large: {settings.upload_bytes} bytes is the limit (`upload_bytes`).")


class TooMany(exceptions.APIException):
    """The caller has as many of something as it may have."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many"


class Unavailable(exceptions.APIException):
    """The database is away, or takes no more connections."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = "The server could not do this now. Try again later."
    wait = 5  # seconds, which DRF answers as `Retry-After`


def _no_such_task(error: UnknownTask) -> exceptions.ValidationError:
    """That there is no such task. With DEBUG on, its developer is told which there are."""
    sentence = str(error)
    if django_settings.DEBUG:
        names = sorted(tasks())
        close = difflib.get_close_matches(str(error.name), names, 1)
        if not names:
            sentence += " TASK_API_BACKGROUND_TASKS is empty: name the Task classes in it, by their dotted paths."
        elif close:
            sentence += f" Did you mean {close[0]!r}?"
        else:
            sentence += f" The tasks in TASK_API_BACKGROUND_TASKS are: {', '.join(names)}."
    return exceptions.ValidationError({"task": [sentence]})


_ANSWERS: dict[type[Exception], Callable[[Any], exceptions.APIException]] = {
    InvalidInputs: lambda error: exceptions.ValidationError({"inputs": error.detail}),
    UnknownTask: _no_such_task,
    IdempotencyConflict: lambda error: IdempotencyKeyReused(str(error)),
    AlreadyFinished: lambda error: RunStateConflict(str(error)),
    NotFinished: lambda error: RunStateConflict(str(error)),
    StorageUnavailable: lambda error: Unavailable(),
    TooManyUploads: lambda error: TooMany(
        f"You have {settings.uploads} uploads that no run uses, and may have no more (`uploads`). "
        "Start runs with them; those that are not used are deleted after a day."
    ),
    RequestDataTooBig: lambda error: TooLarge(),
    **dict.fromkeys(AWAY, lambda error: Unavailable()),
    **dict.fromkeys((Http404, TaskInfo.DoesNotExist), lambda error: exceptions.NotFound()),  # deleted meanwhile
    DjangoPermissionDenied: lambda error: exceptions.PermissionDenied(),
}

CODES: dict[type[Exception], str] = {
    InvalidInputs: "invalid_inputs",
    UnknownTask: "unknown_task",
    IdempotencyConflict: "conflict",
    AlreadyFinished: "conflict",
    NotFinished: "conflict",
    StorageUnavailable: "unavailable",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "authentication_failed",
    exceptions.PermissionDenied: "permission_denied",
    DjangoPermissionDenied: "permission_denied",
    exceptions.NotFound: "not_found",
    Http404: "not_found",
    TaskInfo.DoesNotExist: "not_found",
    exceptions.Throttled: "throttled",
}


def as_api_exception(error: Exception) -> Exception:
    """The refusal as DRF answers it; any other exception as it is."""
    if lacks_migration(error):
        return Unavailable(sentence_of_fault(error))
    if isinstance(error, exceptions.PermissionDenied) and str(error.detail) in CSRF_UNSET:
        return exceptions.PermissionDenied(f"{error.detail} {CSRF_REMEDY}")
    return next((answer(error) for kind, answer in _ANSWERS.items() if isinstance(error, kind)), error)


def lacks_migration(error: BaseException) -> bool:
    """Whether a table or a column is missing. It is told only with DEBUG on: then `migrate` was forgotten."""
    return django_settings.DEBUG and isinstance(error, DatabaseError) and UNMIGRATED.search(str(error)) is not None


def sentence_of_fault(error: BaseException) -> str:
    """What a caller is told if the server failed: to try again, or, with DEBUG on, what its developer has forgotten."""
    if lacks_migration(error):
        return f"The database lacks a table or a column ({error}). Run: python manage.py migrate"
    return Unavailable.default_detail


def code_of(answer: exceptions.APIException) -> str:
    """The word by which a program tells one refusal from another; an `error` frame has the same word."""
    if hides(answer):
        return UNKNOWN_CALLER
    code = next((code for kind, code in CODES.items() if isinstance(answer, kind)), answer.default_code)
    return str(code)


def hides(answer: Exception) -> bool:
    """Whether a caller without credentials was told "not found": the run may exist, or not."""
    return isinstance(answer, exceptions.NotFound) and answer.get_codes() == UNKNOWN_CALLER


def as_protocol_error(error: Exception, ref: str | None) -> ProtocolError:
    """The refusal as an `error` frame says it: its code, and as `detail` what REST would have answered."""
    if isinstance(error, ProtocolError):
        return error
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "invalid_frame")
    answer = as_api_exception(error)
    if not isinstance(answer, exceptions.APIException):
        return ProtocolError(code, str(answer), ref)
    # The client knows the status of most codes. It does not know these two.
    status_is_said = isinstance(answer, RunStateConflict) or (_asks_for_credentials(answer) and _has_challenge())
    reason = UNKNOWN_CALLER if hides(answer) else None
    return ProtocolError(code, answer.detail, ref, answer.status_code if status_is_said else None, reason)


def _asks_for_credentials(answer: exceptions.APIException) -> bool:
    return isinstance(answer, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed))


def _has_challenge() -> bool:
    """Whether DRF answers 401: the first authentication class has a challenge to send. If not, DRF answers 403."""
    classes = settings.authentication_classes
    return bool(classes) and bool(classes[0]().authenticate_header(Request(HttpRequest())))
