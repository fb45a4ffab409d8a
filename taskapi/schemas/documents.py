"""The documents as text, and built once for the same tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

from django.conf import settings as django_settings
from django.utils.translation import get_language

from taskapi.conf import settings
from taskapi.schemas import asyncapi
from taskapi.schemas.tasks import described
from taskapi.tasks import Task

Kind = Literal["openapi", "asyncapi"]

EXTRA = "drf_spectacular"
MISSING = 'The OpenAPI document is written by drf-spectacular. Install it: pip install "django-task-api[openapi]"'


class ExtraMissing(Exception):
    """drf-spectacular is not installed; the message says how to install it."""


def document(kind: Kind, tasks: Iterable[type[Task]], mount: str, server: str | None = None) -> str:
    """The document as JSON, with these tasks; `server` is the URL of the server, without a path.

    Raises ExtraMissing if OpenAPI is asked for and cannot be written.
    """
    if kind == "openapi" and find_spec(EXTRA) is None:
        raise ExtraMissing(MISSING)
    return _document(kind, tuple(tasks), mount, server, _circumstances())


def _circumstances() -> tuple[Any, ...]:
    """What else a document depends on: settings, which tests override, and the language of descriptions."""
    classes = (*settings.authentication_classes, None, *settings.permissions_classes)
    return (*classes, django_settings.SESSION_COOKIE_NAME, get_language())


@lru_cache(maxsize=16)  # callers who may run different tasks, in several languages
def _document(kind: Kind, tasks: tuple[type[Task], ...], mount: str, server: str | None, _: tuple[Any, ...]) -> str:
    known = [described(task) for task in tasks]
    if kind == "asyncapi":
        return json.dumps(asyncapi.document(known, mount, server), indent=2)
    from taskapi.schemas import openapi  # it needs the extra

    return json.dumps(openapi.document(known, mount, server), indent=2)
