"""The HTTP requests by which DRF judges a caller: as the caller came, and again with the user of now."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Model
from django.http import HttpRequest, HttpResponse


def handshake_request(scope: dict[str, Any], *, again: bool = False) -> HttpRequest:
    """The handshake of a WebSocket, with its session and the user of the session; `again`: both as they are now."""
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())
    if "session" in scope:
        request.session = _session_now(scope["session"]) if again else scope["session"]
    elif apps.is_installed("django.contrib.sessions"):
        SessionMiddleware(_no_response).process_request(request)
    if hasattr(request, "session"):
        _add_user(request)
    if "user" in scope and not again:
        request.user = scope["user"]
    elif "user" in scope:
        request.user = _user_now(request, scope["user"])
    # A browser cannot send a CSRF token with a handshake. The Origin check takes its place.
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]  # noqa: SLF001 - Django's own switch
    return request


def open_request(request: HttpRequest, *, again: bool = False) -> HttpRequest:
    """A request whose answer takes its time, as the middleware left it; `again`: with its session and user of now."""
    if not again:
        return request
    fresh = copy_of(request)
    for kept in ("_cached_user", "_acached_user"):  # what Django has found in the session of then
        vars(fresh).pop(kept, None)
    if hasattr(request, "session"):
        fresh.session = _session_now(request.session)
        _add_user(fresh)
    if hasattr(request, "user") and not _is_of_session(request):
        fresh.user = _user_now(fresh, request.user)
    return fresh


def copy_of(request: HttpRequest) -> HttpRequest:
    """A copy with all that middleware has added, and with what Django found by the URL: `copy` leaves that out."""
    copied = request.__class__.__new__(request.__class__)
    vars(copied).update(vars(request))
    return copied


def _add_user(request: HttpRequest) -> None:
    """Let the request find the user of its session."""
    AuthenticationMiddleware(_no_response).process_request(request)
    if hasattr(request.session, "session_key"):
        _keep_session(request.session)


def _is_of_session(request: HttpRequest) -> bool:
    """Whether the user is that of the session, and was not found by other middleware."""
    return hasattr(request, "session") and request.session.get(SESSION_KEY) == str(request.user.pk)


def _session_now(session: Any) -> Any:
    """The session that an ASGI middleware has read, to be read again."""
    if not hasattr(session, "session_key"):
        return session
    return import_module(django_settings.SESSION_ENGINE).SessionStore(session.session_key)


def _keep_session(session: Any) -> None:
    """Prevent Django from ending the session or changing its key: a socket cannot send the browser a new cookie.

    Django does so if the password of the session's user has changed, or if the session is of an older SECRET_KEY.
    """
    session.flush = session.clear
    session.cycle_key = lambda: None


def _user_now(request: HttpRequest, user: Any) -> Any:
    """The user that an ASGI middleware has found, as it is now; AnonymousUser if it cannot log in any more."""
    if not user.is_authenticated:
        return request.user if hasattr(request, "session") else user
    if hasattr(request, "session") and request.session.get(SESSION_KEY) == str(user.pk):
        return request.user
    return unchanged_user(user) or AnonymousUser()


def unchanged_user(user: Any) -> Any:
    """The user as the database has it now; None if it was deleted or deactivated, or has another password."""
    model = user.__class__  # not `type`: the user may be a lazy object
    if not issubclass(model, Model):
        return user
    manager: Any = model._default_manager  # noqa: SLF001 - Django's public name for it, and what its ModelBackend asks
    found = manager.filter(pk=user.pk).first()
    is_same = found is not None and getattr(found, "is_active", True) and found.password == user.password
    return found if is_same else None


def _no_response(request: HttpRequest) -> HttpResponse:
    return HttpResponse()
