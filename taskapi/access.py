"""Who may do what: DRF's authentication, permission and throttle classes, for every front door alike.

A DRF view is what these classes judge with, so a view is what each door makes: the REST views are
subclasses of `TaskAPIView`, and the WebSocket consumer makes one for a frame (see `Caller`), with the
request that the handshake was and the method of the REST call which would do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from functools import cached_property
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, router
from django.http import Http404, HttpRequest, HttpResponse
from django.http.request import split_domain_port, validate_host
from rest_framework import exceptions, status
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from taskapi import rows, runs
from taskapi.conf import settings
from taskapi.database import requests_transaction
from taskapi.exceptions import (
    AlreadyFinished,
    IdempotencyConflict,
    InvalidInputs,
    NotFinished,
    ProtocolError,
    TaskAPIError,
    UnknownTask,
)
from taskapi.models import TaskInfo
from taskapi.registry import get_task
from taskapi.runs import Submission
from taskapi.tasks import Task

logger = logging.getLogger(__name__)

# Where ALLOWED_HOSTS is empty and DEBUG is on, as in Django's own HttpRequest.get_host
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class TaskAPIView(APIView):
    """A view that is guarded by the project's classes, and by those of the task that it turns out to be about."""

    queryset = TaskInfo.objects.all()  # what DjangoModelPermissions go by
    task: type[Task] | None = None

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [authentication() for authentication in settings.authentication_classes]

    def get_permissions(self) -> list[BasePermission]:
        classes = [*settings.permissions_classes, *(self.task.permission_classes if self.task else ())]
        return [permission() for permission in classes]

    def get_throttles(self) -> list[BaseThrottle]:
        # Asked once, when a run is started, and the task is known: DRF's own call, before that, finds none.
        if self.task is None:
            return []
        return [throttle() for throttle in (*settings.throttle_classes, *self.task.throttle_classes)]

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, AWAY):
            logger.error("A request could not be served.", exc_info=exc)
        return super().handle_exception(as_api_exception(exc))

    def start_run(self, task: str, inputs: Any, **options: Any) -> Submission:
        """Start a run for the caller, who must be allowed to; options as of `runs.draft`."""
        return runs.save(self.draft_run(task, inputs, **options))

    def draft_run(self, task: str, inputs: Any, **options: Any) -> TaskInfo:
        """All of `start_run` but its last step, which records the run."""
        self.task = get_task(task)
        self.check_permissions(self.request)
        self.check_throttles(self.request)
        return runs.draft(self.task, inputs, user=self.request.user, **options)

    def cancel_run(self, uuid: UUID) -> TaskInfo:
        """Ask a run to stop that the caller may see; AlreadyFinished where it has ended."""
        info = self.find_run_to_cancel(uuid)
        with requests_transaction(router.db_for_write(TaskInfo)):
            cancelled = runs.cancel(info)
        if not cancelled:
            raise AlreadyFinished(info)
        return info

    def find_run_to_cancel(self, uuid: UUID) -> TaskInfo:
        """All of `cancel_run` but its last step, which waits for whoever has locked the run."""
        info = self.find_run(uuid)
        self.check_throttles(self.request)
        return info

    def retry_run(self, uuid: UUID) -> TaskInfo:
        """Start a run again that the caller may see; NotFinished where it has not ended."""
        info = self.find_run(uuid)
        self.check_throttles(self.request)
        return runs.retry(info)

    def find_run(self, uuid: UUID) -> TaskInfo:
        """A run that the caller may see, or NotFound: his own; any, for staff; one that was started anonymously."""
        info = rows.read({"uuid": uuid})
        if info is None or not _may_see(self.request.user, info):
            raise exceptions.NotFound
        try:
            self.task = get_task(info.task)
        except UnknownTask:
            self.task = None
        else:
            self.check_permissions(self.request)
        self.check_object_permissions(self.request, info)
        return info


def _may_see(user: Any, info: TaskInfo) -> bool:
    if info.user_id is None:
        return True
    return user is not None and (user.pk == info.user_id or bool(getattr(user, "is_staff", False)))


# Refusals


class Conflict(exceptions.APIException):
    """A used idempotency key came with other inputs."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "conflict"


class MakesNoSense(exceptions.APIException):
    """The run is not in a state for that."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class TooLarge(exceptions.APIException):
    """The body of a request is over Django's own limit."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"
    default_detail = "The request is too large: DATA_UPLOAD_MAX_MEMORY_SIZE is the server's limit."


class Unavailable(exceptions.APIException):
    """The database is away, or takes no more connections."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = "The server could not do this now. Try again later."


AWAY = (OperationalError, InterfaceError)

_ANSWERS: dict[type[Exception], Callable[[Any], exceptions.APIException]] = {
    InvalidInputs: lambda error: exceptions.ValidationError({"inputs": error.detail}),
    UnknownTask: lambda error: exceptions.ValidationError({"task": [str(error)]}),
    IdempotencyConflict: lambda error: Conflict(str(error)),
    AlreadyFinished: lambda error: MakesNoSense(str(error)),
    NotFinished: lambda error: MakesNoSense(str(error)),
    RequestDataTooBig: lambda error: TooLarge(),
    OperationalError: lambda error: Unavailable(),
    InterfaceError: lambda error: Unavailable(),
    Http404: lambda error: exceptions.NotFound(),
    DjangoPermissionDenied: lambda error: exceptions.PermissionDenied(),
}

_CODES: dict[type[Exception], str] = {
    InvalidInputs: "invalid_inputs",
    UnknownTask: "unknown_task",
    IdempotencyConflict: "conflict",
    AlreadyFinished: "conflict",
    NotFinished: "conflict",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "authentication_failed",
    exceptions.PermissionDenied: "permission_denied",
    DjangoPermissionDenied: "permission_denied",
    exceptions.NotFound: "not_found",
    Http404: "not_found",
    exceptions.Throttled: "throttled",
}

Refused = (TaskAPIError, exceptions.APIException, Http404, DjangoPermissionDenied)


def as_api_exception(error: Exception) -> Exception:
    """The refusal as DRF answers it; any other exception as it is."""
    return next((answer(error) for kind, answer in _ANSWERS.items() if isinstance(error, kind)), error)


def as_protocol_error(error: Exception, ref: str | None) -> ProtocolError:
    """The refusal as an `error` frame says it: its code, and as `detail` what REST would have answered."""
    if isinstance(error, ProtocolError):
        return error
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "invalid_frame")
    answer = as_api_exception(error)
    if not isinstance(answer, exceptions.APIException):
        return ProtocolError(code, str(answer), ref)
    asks_who = isinstance(answer, (exceptions.NotAuthenticated, exceptions.AuthenticationFailed))
    # As a DRF view decides it: 401 where the first authentication class has a challenge to send, and else 403.
    challenges = asks_who and TaskAPIView().get_authenticate_header(Request(HttpRequest()))
    unsaid = challenges or isinstance(answer, MakesNoSense)
    return ProtocolError(code, answer.detail, ref, answer.status_code if unsaid else None)


# WebSocket


def origin_allowed(scope: dict[str, Any]) -> bool:
    """Whether a handshake comes from a page of ALLOWED_HOSTS, or from no browser: that one sends no Origin."""
    origin = _header(scope, b"origin")
    if origin is None:
        return True
    allowed = django_settings.ALLOWED_HOSTS or (LOCAL_HOSTS if django_settings.DEBUG else [])
    try:
        domain, _ = split_domain_port(urlsplit(origin).netloc.lower())
    except ValueError:
        return False
    return validate_host(domain, allowed)


def _header(scope: dict[str, Any], name: bytes) -> str | None:
    return next((value.decode("latin1") for key, value in scope["headers"] if key == name), None)


class Caller:
    """Who is at the other end of a socket, and what they may do. It uses the database.

    Raises AuthenticationFailed where the credentials of the handshake are wrong.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        request = TaskAPIView().initialize_request(_http_request(scope))
        user = copy(request.user)  # the user itself: a lazy one holds on to the request that it came with
        # without authenticators there is none to know, and DRF answers "forbidden" and not "who are you?"
        self._known = _Known(user, request.auth, request) if request.authenticators else None

    @cached_property
    def _http(self) -> HttpRequest:
        """From the first frame on: of many sockets most are idle, and a request takes 3 KB."""
        return _http_request(self._scope)

    def view(self, method: str, data: dict[str, Any] | None = None, **kwargs: Any) -> TaskAPIView:
        """A view for one frame, which the project's permissions let through.

        `data` is the body of the REST call that does the same, and `kwargs` those of its URL.
        """
        http = copy(self._http)
        http.method = method
        view = TaskAPIView()
        view.request = Request(http, authenticators=[self._known] if self._known else [])
        # DRF has no other way to give a request its data
        view.request._full_data = data or {}  # type: ignore[attr-defined]  # noqa: SLF001
        view.args, view.kwargs, view.headers = (), kwargs, {}
        view.check_permissions(view.request)
        return view


class _Known(BaseAuthentication):
    """What the handshake's authentication found, for the frames that follow."""

    def __init__(self, user: Any, auth: Any, request: Request) -> None:
        self._found = (user, auth) if request.successful_authenticator is not None else None

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        return self._found


def _http_request(scope: dict[str, Any]) -> HttpRequest:
    """The handshake as a request, with its session and the user of that."""
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())
    if "session" in scope:
        request.session = scope["session"]
    elif apps.is_installed("django.contrib.sessions"):
        SessionMiddleware(_no_response).process_request(request)
    if hasattr(request, "session"):
        AuthenticationMiddleware(_no_response).process_request(request)
    if "user" in scope:
        request.user = scope["user"]
    # A browser cannot be made to send a token with a handshake: the Origin check takes CSRF's place.
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # noqa: SLF001 - Django's own switch
    return request


def _no_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse()
