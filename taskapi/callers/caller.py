"""The caller at the other end of a socket or of a stream: who it is, what it may do, and what may change it.

A socket lives for hours. Meanwhile its user may log out, log in as another user, or be deactivated. So the credentials
of its handshake are judged again and again; and those of the request that a stream answers likewise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from functools import cached_property, partial
from threading import Lock
from typing import Any
from uuid import UUID
from weakref import WeakSet

from django.conf import settings as django_settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.http import HttpRequest
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.request import Request

from taskapi.callers.requests import copy_of, handshake_request, open_request, unchanged_user
from taskapi.runs.access import TaskAPIView, refuse_deleted_user
from taskapi.runs.refusals import REFUSALS

JUDGED_FOR = 1.5  # seconds for which a judgement holds


class Caller:
    """Who is at the other end of a socket or of a stream, and what it may do. Its methods use the database.

    `make_request` gives the request that the caller came with; with `again=True`, the same with the session and the
    user of now. `request` is the first of them, if a view has authenticated it already. Raises AuthenticationFailed if
    the credentials are wrong.
    """

    def __init__(self, make_request: Callable[..., HttpRequest], request: Request | None = None) -> None:
        self._make_request = make_request
        self._authentication, self._identity = _authenticate(
            request or TaskAPIView().initialize_request(make_request())
        )
        found_by = self._authentication and self._authentication.found_by
        self._by_password = isinstance(found_by, BasicAuthentication)
        #: Whether it can become another caller: it is a user, or has a session in which a user can log in.
        self.may_change = found_by is not None or (self._authentication is not None and self.session_key is not None)
        self.is_over = False  # it is another caller by now, though the database may not say so
        self.judged = time.monotonic()
        self.is_doubtful = False  # its user, or a session of its browser, has changed
        if self.may_change:
            with _callers_lock:
                _callers.add(self)

    @classmethod
    def of_socket(cls, scope: dict[str, Any]) -> Caller:
        """The caller of a WebSocket, by its handshake."""
        return cls(partial(handshake_request, scope))

    @classmethod
    def of_stream(cls, request: Request) -> Caller:
        """The caller whose request, which was authenticated already, is answered by a stream."""
        return cls(partial(open_request, request._request), request)  # noqa: SLF001 - DRF has no public name for it

    @property
    def is_due(self) -> bool:
        """Whether it has to be judged again before its next frame is served."""
        return self.may_change and (self.is_doubtful or time.monotonic() - self.judged > JUDGED_FOR)

    @property
    def user_pk(self) -> Any:
        return self._identity[0]

    @property
    def session_key(self) -> str | None:
        return self._identity[1]

    def revalidate(self) -> bool:
        """Judge the credentials of the request again; False if they are not those of the same caller any more."""
        self.judged, self.is_doubtful = time.monotonic(), False  # first: a change from now on asks for another look
        if self.is_over:
            return False
        try:
            is_same = self._has_same_password() if self._by_password else self._is_same()
        except REFUSALS:
            is_same = False
        self.is_over = not is_same
        return is_same

    def _is_same(self) -> bool:
        authentication, identity = _authenticate(_as_drf(self._make_request(again=True)))
        if identity != self._identity:
            return False
        self._authentication = authentication  # permissions are judged by the user as it is now
        return True

    def _has_same_password(self) -> bool:
        """As `_is_same`, but without hashing the password, which takes a third of a second on purpose."""
        authentication: Any = self._authentication
        user = unchanged_user(authentication.user)
        if user is None:
            return False
        authentication.user = user
        return True

    def refuse_if_deleted(self) -> None:
        """NotAuthenticated if the user was deleted since the last look."""
        if self._authentication is not None:
            refuse_deleted_user(self._authentication.user)

    @cached_property
    def _http(self) -> HttpRequest:
        """Made for the first frame and not before: it takes 3 KB, and most of many sockets are idle."""
        return self._make_request()

    def view(self, method: str, data: dict[str, Any] | None = None, *, uuid: UUID | None = None) -> TaskAPIView:
        """A view for one frame or stream, which the project's permissions let through.

        `data` is the body of the REST call that does the same, and `uuid` the one in its URL.
        """
        if self.is_over:  # found since the frame was taken; the socket is about to be closed
            raise exceptions.NotAuthenticated
        http = copy_of(self._http)
        http.method = method
        view = TaskAPIView()
        view.request = Request(http, authenticators=[self._authentication] if self._authentication else [])
        # DRF has no other way to give a request its data
        view.request._full_data = data or {}  # type: ignore[attr-defined]  # noqa: SLF001
        view.args, view.kwargs, view.headers = (), {} if uuid is None else {"uuid": uuid}, {}
        view.check_permissions(view.request)
        return view


class KnownCaller(BaseAuthentication):
    """What authentication found at first, for what follows."""

    def __init__(self, user: Any, auth: Any, found_by: Any) -> None:
        self.user, self._auth = user, auth
        self.found_by = found_by  # the authenticator; None if the caller is anonymous

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        return None if self.found_by is None else (self.user, self._auth)


def _as_drf(http: HttpRequest) -> Request:
    return TaskAPIView().initialize_request(http)


def _authenticate(request: Request) -> tuple[KnownCaller | None, tuple[Any, str | None]]:
    """What authentication finds, and the identity of the caller: the user's primary key, and the session's key."""
    user = copy(request.user)  # a copy of the user itself: a lazy one keeps its request in memory
    # None if the project has no authenticators: DRF then answers "forbidden", and not "log in"
    found = KnownCaller(user, request.auth, request.successful_authenticator) if request.authenticators else None
    return found, (getattr(user, "pk", None), getattr(getattr(request, "session", None), "session_key", None))


# What changes a caller
#
# A process that serves REST as well as sockets sees most changes happen, and need not wait for the next look. Changes
# that another process makes are found by looking.

_callers: WeakSet[Caller] = WeakSet()  # those that may change
_callers_lock = Lock()


def _on_login(*, request: Any, user: Any, **kwargs: Any) -> None:
    before = getattr(request, "COOKIES", {}).get(django_settings.SESSION_COOKIE_NAME)
    for caller in _doubt(lambda caller: caller.user_pk == user.pk or (before and caller.session_key == before)):
        # The session was another user's or nobody's. Its browser has a cookie of a new session now.
        caller.is_over = caller.is_over or caller.user_pk != user.pk


def _on_logout(*, request: Any, user: Any, **kwargs: Any) -> None:
    if user is None:
        return
    doubted = _doubt(lambda caller: caller.user_pk == user.pk)
    session = getattr(request, "session", None)
    if doubted and session is not None and session.session_key and not session.exists(session.session_key):
        # The session is kept in its cookie, so nothing on the server says whether it goes on. All sockets of the user
        # are closed; a browser that is still logged in connects again.
        for caller in doubted:
            caller.is_over = caller.is_over or caller.session_key is not None


def _on_change(*, instance: Any, using: str, **kwargs: Any) -> None:
    if not _callers:
        return
    doubt = partial(_doubt, partial(_is_user, instance.pk))
    connection = transaction.get_connection(using)
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(doubt, using=using)
    else:  # the project commits by itself: Django does not know when, and `on_commit` would raise
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
