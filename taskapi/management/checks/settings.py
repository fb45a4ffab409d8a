"""Whether every TASK_API_* setting has a value that can be used."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission, OperandHolder, SingleOperandHolder
from rest_framework.throttling import BaseThrottle

from taskapi.backends import Backend
from taskapi.backends.redis import check_url
from taskapi.conf import DEFAULT_LIMITS, TASKS_SETTINGS, settings
from taskapi.management.checks.values import is_duration, is_seconds, value_of
from taskapi.protocol import LEAST_FRAME

MAX_PREFIX = 50  # characters: names of groups begin with it, and Channels wants them shorter than 100
PREFIX = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_PREFIX}}}")  # the characters that Channels takes in the name of a group
SETTINGS = (
    "TASK_API_BACKEND",
    *(f"TASK_API_{name}" for name in TASKS_SETTINGS),
    "TASK_API_AUTHENTICATION_CLASSES",
    "TASK_API_PERMISSIONS_CLASSES",
    "TASK_API_THROTTLE_CLASSES",
    "TASK_API_REDIS_URL",
    "TASK_API_REDIS_PREFIX",
    "TASK_API_RETENTION",
    "TASK_API_EVENT_INTERVAL",
    "TASK_API_LIMITS",
    "TASK_API_OFFLOAD_BYTES",
)
#: How the names of a setting begin if TASK_API_ was meant.
LIKELY_PREFIX = re.compile(r"(?:DJANGO_)?TASKS?_?APIS?(?:_|$)")
BARE_LISTS = ("BACKGROUND_TASKS", "BACKGROUND_TASK", "BACKGROUND_CLASSES")  # the list of tasks, without a prefix
LISTS = (*BARE_LISTS, "TASKS", "TASK", "CLASSES", "TASK_CLASSES")  # the same, after a prefix
COUNTS = ("upload_bytes", "uploads")  # limits that may be any number: 0 refuses all uploads
LATER_LIMITS = (  # limits of a later version: their names are decided, and they have no effect yet
    "input_bytes",
    "output_bytes",
    "message_bytes",
    "messages",
    "frame_bytes",
    "json_depth",
    "frames_per_second",
    "frames_burst",
    "subscriptions",
    "sockets",
    "open_runs",
)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Every TASK_API_* setting has a value that can be used."""
    problems = [
        *_check_backend(),
        *_check_classes("AUTHENTICATION_CLASSES", BaseAuthentication),
        *_check_classes("PERMISSIONS_CLASSES", BasePermission),
        *_check_classes("THROTTLE_CLASSES", BaseThrottle),
        *_check_redis_url(),
        *_check_redis_prefix(),
        *_check_event_interval(),
        *_check_retention(),
        *_check_limits(),
        *_check_offload_bytes(),
    ]
    errors = [
        checks.Error(f"{setting}: {problem}", hint=hint, id="taskapi.E010") for setting, problem, hint in problems
    ]
    return [*errors, *_check_names(), *_check_later_limits()]


def _check_names() -> Iterator[CheckMessage]:
    """A misspelt TASK_API_PERMISSIONS_CLASSES would leave the API open, in silence."""
    for name in dir(django_settings):
        if _is_misspelt(name):
            meant = _meant_by(name)
            yield checks.Warning(
                f"{name} is not a setting of Django Task API, so it has no effect.",
                hint=f"Did you mean {meant}?" if meant else f"The settings are: {', '.join(SETTINGS)}.",
                id="taskapi.W002",
            )


def _is_misspelt(name: str) -> bool:
    """Whether the name of a setting seems to be meant for this package, and is none of its names."""
    if name in SETTINGS:
        return False
    if name in BARE_LISTS:  # another package may have such a setting
        return not any(value_of(right) for right in TASKS_SETTINGS)
    return LIKELY_PREFIX.match(name) is not None


def _meant_by(name: str) -> str | None:
    """The setting that a misspelt name is most like."""
    rest = LIKELY_PREFIX.sub("", name)
    if rest in LISTS:
        return "TASK_API_BACKGROUND_TASKS"
    close = difflib.get_close_matches(rest, [name.removeprefix("TASK_API_") for name in SETTINGS], 1)
    return f"TASK_API_{close[0]}" if close else None


Problem = tuple[str, str, str]  # the setting, what is wrong with it, what to do


def _check_backend() -> Iterator[Problem]:
    path = settings.backend
    hint = "Name a backend by its dotted path, such as 'taskapi.backends.arq.ArqBackend'."
    try:
        backend = import_string(path)
    except (ImportError, AttributeError, TypeError) as error:
        yield "TASK_API_BACKEND", f"{path!r} cannot be imported: {error}", hint
        return
    if not (inspect.isclass(backend) and issubclass(backend, Backend)):
        yield "TASK_API_BACKEND", f"{path!r} is not a subclass of taskapi.backends.Backend.", hint


def _check_classes(name: str, base: type) -> Iterator[Problem]:
    value = value_of(name)
    if value is None:
        return
    setting = f"TASK_API_{name}"
    hint = f"Give a list of subclasses of {base.__module__}.{base.__name__}, or of their dotted paths."
    if isinstance(value, str) or not isinstance(value, Iterable):
        yield setting, f"expected a list, got {value!r}.", hint
        return
    for entry in value:
        try:
            found = import_string(entry) if isinstance(entry, str) else entry
        except ImportError as error:
            yield setting, f"{entry!r} cannot be imported: {error}", hint
            continue
        combined = isinstance(found, (OperandHolder, SingleOperandHolder))  # `IsAdminUser | ReadOnly`
        if not combined and not (inspect.isclass(found) and issubclass(found, base)):
            yield setting, f"{entry!r} is not a subclass of {base.__name__}.", hint


def _check_redis_url() -> Iterator[Problem]:
    try:
        check_url(settings.redis_url)
    except ValueError as error:
        hint = "Write it as redis://127.0.0.1:6379/0; the environment variable REDIS_URL may have it, too."
        yield "TASK_API_REDIS_URL", f"{error}.", hint


def _check_redis_prefix() -> Iterator[Problem]:
    value = value_of("REDIS_PREFIX")
    if value is not None and not (isinstance(value, str) and PREFIX.fullmatch(value)):
        hint = (
            "Give each installation that shares a Redis a name of its own, such as 'mysite-staging': at most "
            f"{MAX_PREFIX} letters, digits, hyphens, underscores and full stops. 'taskapi' is the default."
        )
        yield "TASK_API_REDIS_PREFIX", f"expected a short name, got {value!r}.", hint


def _check_event_interval() -> Iterator[Problem]:
    value = value_of("EVENT_INTERVAL")
    if value is not None and not is_seconds(value):
        yield "TASK_API_EVENT_INTERVAL", f"expected seconds, 0 or more, got {value!r}.", "0.05 is the default."


def _check_retention() -> Iterator[Problem]:
    value = value_of("RETENTION")
    if value is not None and not is_duration(value):
        hint = "None keeps finished runs for ever."
        yield "TASK_API_RETENTION", f"expected seconds, a timedelta or None, got {value!r}.", hint


def _check_limits() -> Iterator[Problem]:
    value = value_of("LIMITS")
    if value is None:
        return
    if not isinstance(value, Mapping):
        hint = f"Give a dict such as {DEFAULT_LIMITS}; a limit that is left out keeps its default."
        yield "TASK_API_LIMITS", f"expected a dict, got {value!r}.", hint
        return
    for name, limit in value.items():
        if name in LATER_LIMITS:
            continue
        if name not in DEFAULT_LIMITS:
            hint = f"The limits are: {', '.join(DEFAULT_LIMITS)}."
            yield "TASK_API_LIMITS", f"there is no limit named {name!r}.", hint
        elif name in COUNTS:
            if type(limit) is not int or limit < 0:
                problem = f"{name!r}: expected a whole number, 0 or more, got {limit!r}."
                yield "TASK_API_LIMITS", problem, f"{DEFAULT_LIMITS[name]} is the default."
        elif type(limit) is not int or limit < LEAST_FRAME:
            hint = f"{DEFAULT_LIMITS[name]} is the default. Give daphne the same as --websocket-max-message-size."
            problem = f"{name!r}: expected a whole number of bytes, {LEAST_FRAME} or more, got {limit!r}."
            yield "TASK_API_LIMITS", problem, hint


def _check_offload_bytes() -> Iterator[Problem]:
    value = value_of("OFFLOAD_BYTES")
    if value is not None and (type(value) is not int or value < 0):
        hint = "Give a number of bytes, such as 1_000_000; None, the default, keeps all values in the table."
        yield "TASK_API_OFFLOAD_BYTES", f"expected a whole number of bytes, 0 or more, or None, got {value!r}.", hint


def _check_later_limits() -> Iterator[CheckMessage]:
    value = value_of("LIMITS")
    names = [name for name in LATER_LIMITS if isinstance(value, Mapping) and name in value]
    if names:
        yield checks.Warning(
            f"TASK_API_LIMITS: {', '.join(map(repr, names))} belong to a later version, and have no effect yet.",
            hint=f"Remove them. The limits that have an effect are: {', '.join(DEFAULT_LIMITS)}.",
            id="taskapi.W010",
        )
