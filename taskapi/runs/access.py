"""Who may do what: DRF's authentication, permission and throttle classes, for every front door alike.

A DRF view is what these classes judge with, so a view is what each door makes: the REST views are
subclasses of `TaskAPIView`, and the WebSocket consumer makes one for a frame (see `Caller`), with the
request that the handshake was and the method of the REST call which would do the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from copy import copy
from functools import cached_property, partial
from importlib import import_module
from io import BytesIO
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID
from weakref import WeakSet

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, router, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save
from django.http import Http404, HttpRequest, HttpResponse
from django.http.request import split_domain_port, validate_host
from rest_framework import exceptions, status
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from taskapi import runs
from taskapi.conf import settings
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
from taskapi.runs import Submission
from taskapi.store import rows
from taskapi.store.database import requests_transaction
from taskapi.tasks import Task
from taskapi.tasks.registry import get_task

logger = logging.getLogger(__name__)

# Where ALLOWED_HOSTS is empty and DEBUG is on, as in Django's own HttpRequest.get_host
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]

UNKNOWN_CALLER = exceptions.NotAuthenticated.default_code
JUDGED_FOR = 1.5  # seconds for which a caller is believed to be who it was when it was last judged


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
        answer = as_api_exception(exc)
        response = super().handle_exception(answer)
        if (
            isinstance(answer, exceptions.APIException)
            and isinstance(response.data, dict)
            and "detail" in response.data
        ):
            response.data.setdefault("code", code_of(answer))
        return response

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
        """A run that the caller may see, or NotFound: his own; any, for staff; one that was started anonymously.

        Who has no credentials is told that, too, whether there is such a run or not: it may be his own.
        """
        try:
            return self._find_run(uuid)
        except (exceptions.NotFound, Http404):
            if not self.request.authenticators or self.request.successful_authenticator is not None:
                raise
            raise exceptions.NotFound(code=UNKNOWN_CALLER) from None

    def _find_run(self, uuid: UUID) -> TaskInfo:
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


def code_of(answer: exceptions.APIException) -> str:
    """The word by which a program tells a refusal from others: that of an `error` frame, where there is one."""
    if hides(answer):
        return UNKNOWN_CALLER
    code = next((code for kind, code in _CODES.items() if isinstance(answer, kind)), answer.default_code)
    return str(code)


def hides(answer: Exception) -> bool:
    """Whether a run was not found for somebody who has no credentials: there may be one, or not."""
    return isinstance(answer, exceptions.NotFound) and answer.get_codes() == UNKNOWN_CALLER


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
    reason = UNKNOWN_CALLER if hides(answer) else None
    return ProtocolError(code, answer.detail, ref, answer.status_code if unsaid else None, reason)


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

    Raises AuthenticationFailed where the credentials of the handshake are wrong. A socket lives for hours, so the
    same credentials are judged again (`renew`): the session may have ended meanwhile, or be another user's.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._known, self._identity = _authenticate(_http_request(scope))
        found_by = self._known and self._known.found_by
        self._by_password = isinstance(found_by, BasicAuthentication)
        #: Whether it can be somebody else one day: it is somebody, or has a session in which to log in.
        self.may_change = found_by is not None or (self._known is not None and self.session_key is not None)
        self.is_over = False  # known not to be who it was, though nothing in the database says so
        self.judged = time.monotonic()
        self.is_doubtful = False  # something has changed: the user, or a session of its browser
        if self.may_change:
            with _callers_lock:
                _callers.add(self)

    @property
    def is_due(self) -> bool:
        """Whether it should be judged again before it is believed to be who it was."""
        return self.may_change and (self.is_doubtful or time.monotonic() - self.judged > JUDGED_FOR)

    @property
    def user_pk(self) -> Any:
        return self._identity[0]

    @property
    def session_key(self) -> str | None:
        return self._identity[1]

    def renew(self) -> bool:
        """Judge the credentials of the handshake again: False where they are not those of the same caller any more."""
        self.judged, self.is_doubtful = time.monotonic(), False  # before it looks: what changes now is looked at again
        if self.is_over:
            return False
        try:
            is_same = self._has_same_password() if self._by_password else self._is_same()
        except Refused:
            is_same = False
        self.is_over = not is_same
        return is_same

    def _is_same(self) -> bool:
        known, identity = _authenticate(_http_request(self._scope, again=True))
        if identity != self._identity:
            return False
        self._known = known  # what it may do is judged by the user as he is now
        return True

    def _has_same_password(self) -> bool:
        """As `_is_same`, without the third of a second that hashing a password takes on purpose."""
        known: Any = self._known
        user = _as_he_was(known.user)
        if user is None:
            return False
        known.user = user
        return True

    @cached_property
    def _http(self) -> HttpRequest:
        """From the first frame on: of many sockets most are idle, and a request takes 3 KB."""
        return _http_request(self._scope)

    def view(self, method: str, data: dict[str, Any] | None = None, **kwargs: Any) -> TaskAPIView:
        """A view for one frame, which the project's permissions let through.

        `data` is the body of the REST call that does the same, and `kwargs` those of its URL.
        """
        if self.is_over:  # since the frame was taken; the socket is about to be closed
            raise exceptions.NotAuthenticated
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

    def __init__(self, user: Any, auth: Any, found_by: Any) -> None:
        self.user, self._auth = user, auth
        self.found_by = found_by  # the authenticator; None: nobody was found

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        return None if self.found_by is None else (self.user, self._auth)


def _authenticate(http: HttpRequest) -> tuple[_Known | None, tuple[Any, str | None]]:
    """What there is to know of the caller, and who it is: the user's primary key, and the key of the session."""
    request = TaskAPIView().initialize_request(http)
    user = copy(request.user)  # the user itself: a lazy one holds on to the request that it came with
    # without authenticators there is none to know, and DRF answers "forbidden" and not "who are you?"
    known = _Known(user, request.auth, request.successful_authenticator) if request.authenticators else None
    return known, (getattr(user, "pk", None), getattr(getattr(http, "session", None), "session_key", None))


def _as_he_was(user: Any) -> Any:
    """The user as the database has him now; None where he is gone, or may not log in, or has another password."""
    kind = user.__class__  # that of what a lazy one holds
    if not issubclass(kind, Model):
        return user
    manager: Any = kind._default_manager  # noqa: SLF001 - Django's public name for it, and what its ModelBackend asks
    found = manager.filter(pk=user.pk).first()
    is_same = found is not None and getattr(found, "is_active", True) and found.password == user.password
    return found if is_same else None


def _http_request(scope: dict[str, Any], *, again: bool = False) -> HttpRequest:
    """The handshake as a request, with its session and the user of that; `again`: as they are now."""
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())
    if "session" in scope:
        request.session = _session_again(scope["session"]) if again else scope["session"]
    elif apps.is_installed("django.contrib.sessions"):
        SessionMiddleware(_no_response).process_request(request)
    if hasattr(request, "session"):
        AuthenticationMiddleware(_no_response).process_request(request)
        if hasattr(request.session, "session_key"):
            _leave_as_it_is(request.session)
    if "user" in scope and not again:
        request.user = scope["user"]
    elif "user" in scope:
        request.user = _user_again(request, scope["user"])
    # A browser cannot be made to send a token with a handshake: the Origin check takes CSRF's place.
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # noqa: SLF001 - Django's own switch
    return request


def _session_again(session: Any) -> Any:
    """The session that an ASGI middleware has read, to be read again."""
    if not hasattr(session, "session_key"):
        return session
    return import_module(django_settings.SESSION_ENGINE).SessionStore(session.session_key)


def _leave_as_it_is(session: Any) -> None:
    """Let nobody end the session, or give it another key: a browser is not told of it over a socket.

    Django does so when it finds a session of a user whose password has changed, or of an older SECRET_KEY.
    """
    session.flush = session.clear
    session.cycle_key = lambda: None


def _user_again(request: HttpRequest, user: Any) -> Any:
    """Whom an ASGI middleware has found, as he is now; AnonymousUser where he is not any more."""
    if not user.is_authenticated:
        return request.user if hasattr(request, "session") else user
    if hasattr(request, "session") and request.session.get(SESSION_KEY) == str(user.pk):
        return request.user
    return _as_he_was(user) or AnonymousUser()


def _no_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


# What changes a caller
#
# A process that serves REST as well as sockets sees most changes happen. They are hints: others are seen by looking.

_callers: WeakSet[Caller] = WeakSet()  # those that may change
_callers_lock = Lock()


def _on_login(*, request: Any, user: Any, **kwargs: Any) -> None:
    before = getattr(request, "COOKIES", {}).get(django_settings.SESSION_COOKIE_NAME)
    for caller in _doubt(lambda caller: caller.user_pk == user.pk or (before and caller.session_key == before)):
        # a session that was another's, or nobody's, has given way to a new one: that browser's cookie says so
        caller.is_over = caller.is_over or caller.user_pk != user.pk


def _on_logout(*, request: Any, user: Any, **kwargs: Any) -> None:
    if user is None:
        return
    doubted = _doubt(lambda caller: caller.user_pk == user.pk)
    session = getattr(request, "session", None)
    if doubted and session is not None and session.session_key and not session.exists(session.session_key):
        # It is kept in its cookie, and there is no place to look whether it goes on. Those of the user's browsers
        # that are still logged in come back.
        for caller in doubted:
            caller.is_over = caller.is_over or caller.session_key is not None


def _on_change(*, instance: Any, using: str, **kwargs: Any) -> None:
    if not _callers:
        return
    doubt = partial(_doubt, partial(_is_user, instance.pk))
    connection = transaction.get_connection(using)
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(doubt, using=using)
    else:  # by hand: Django tells nobody of its commit, and on_commit would raise in the project's own line
        doubt()


def _is_user(pk: Any, caller: Caller) -> bool:
    return bool(caller.user_pk == pk)


def _doubt(concerns: Callable[[Caller], object]) -> list[Caller]:
    with _callers_lock:
        concerned = [caller for caller in _callers if concerns(caller)]
    for caller in concerned:
        caller.is_doubtful = True
    return concerned


user_logged_in.connect(_on_login)
user_logged_out.connect(_on_logout)
post_save.connect(_on_change, sender=django_settings.AUTH_USER_MODEL)
post_delete.connect(_on_change, sender=django_settings.AUTH_USER_MODEL)
