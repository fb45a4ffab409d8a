"""Where a file that a run has returned can be fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import NoReverseMatch, URLResolver, get_resolver, get_script_prefix, reverse

APP_NAME = "taskapi"  # of `taskapi.urls`


def path_of(uuid: UUID, reference: str) -> str | None:
    """The path of a file of that run, on the project's server; None if the project has not mounted `taskapi.urls`.

    A worker serves no request. So a prefix of the server's own is known to it by FORCE_SCRIPT_NAME alone.
    """
    for namespaces in ([APP_NAME], *_mounts(get_resolver().url_patterns, [])):
        try:
            path = reverse(":".join([*namespaces, "file"]), kwargs={"uuid": uuid, "reference": reference})
        except NoReverseMatch:
            continue
        prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
        return f"{prefix}{path}" if get_script_prefix() == "/" else path
    return None


def _mounts(patterns: Iterable[Any], outer: list[str]) -> Iterator[list[str]]:
    """The namespaces of `taskapi.urls`, wherever a project has included them."""
    for resolver in patterns:
        if not isinstance(resolver, URLResolver):
            continue
        namespaces = [*outer, resolver.namespace] if resolver.namespace else outer
        if resolver.app_name == APP_NAME:
            yield namespaces
        else:
            yield from _mounts(resolver.url_patterns, namespaces)
