"""Where a project has mounted our URLs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.urls import URLResolver, get_resolver, get_script_prefix
from rest_framework.schemas.generators import EndpointEnumerator

APP_NAME = "taskapi"  # of `taskapi.urls`


def find_mount() -> str:
    """The path of ``include("taskapi.urls")``, with slashes around it; "/" if the project has none."""
    found = next(_mounts(get_resolver().url_patterns, ""), "/")
    return f"{get_script_prefix().rstrip('/')}{found}"


def _mounts(patterns: Iterable[Any], before: str) -> Iterator[str]:
    for resolver in patterns:
        if isinstance(resolver, URLResolver):
            route = f"{before}{resolver.pattern}"
            if resolver.app_name == APP_NAME:
                yield EndpointEnumerator([]).get_path_from_regex(route)
            else:
                yield from _mounts(resolver.url_patterns, route)
