"""Whether the page that opens a WebSocket may do so."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.http.request import split_domain_port, validate_host

# Allowed if ALLOWED_HOSTS is empty and DEBUG is on, as in Django's own HttpRequest.get_host
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


def origin_allowed(scope: dict[str, Any]) -> bool:
    """Whether a handshake comes from a page of ALLOWED_HOSTS, or from no browser: then it has no Origin."""
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
