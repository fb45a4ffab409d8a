"""System checks: what is wrong with the settings and tasks, each with its remedy, before a user finds out."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from asgiref.sync import AsyncToSync, iscoroutinefunction
from django.conf import settings as django_settings
from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections
from django.utils.module_loading import import_string
from rest_framework.authentication import BaseAuthentication
from rest_framework.fields import empty
from rest_framework.permissions import BasePermission, OperandHolder, SingleOperandHolder
from rest_framework.throttling import BaseThrottle

from taskapi.backends import Backend, get_backend
from taskapi.backends.redis import check_url
from taskapi.conf import CHANNEL_LAYER_ALIASES, DEFAULT_LIMITS, TASKS_SETTINGS, settings
from taskapi.params import Parameter
from taskapi.protocol import LEAST_FRAME
from taskapi.tasks import Task
from taskapi.tasks.registry import load

MAX_PREFIX = 50  # characters: the names of groups begin with it, which Channels wants to have less than 100
PREFIX = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_PREFIX}}}")  # of what Channels takes in the name of a group
IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
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
)
LATER_LIMITS = (  # of which it is decided what they will bound, and which bound nothing yet
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
    "uploads",
    "upload_bytes",
)
BUSY_TIMEOUT = 5  # seconds: sqlite3's own default, which Django keeps; less is too little with several processes


def register() -> None:
    checks.register(check_tasks, "taskapi")
    checks.register(check_settings, "taskapi")
    checks.register(check_channel_layer, "taskapi")
    checks.register(check_sqlite, "taskapi", checks.Tags.database)
    checks.register(check_postgresql, "taskapi", checks.Tags.database)


# Tasks


def check_tasks(**kwargs: Any) -> list[CheckMessage]:
    """Every entry of TASK_API_BACKGROUND_TASKS is a task that can be run."""
    messages: list[CheckMessage] = []
    by_name: dict[str, type[Task]] = {}
    for setting, entry in _entries(messages):
        try:
            task = load(entry)
        except (ImportError, TypeError) as error:
            messages.append(
                checks.Error(
                    f"{setting}: the entry {entry!r} cannot be used: {error}",
                    hint="Name a subclass of taskapi.tasks.Task by its dotted path, or give the class.",
                    id="taskapi.E001",
                )
            )
            continue
        other = by_name.setdefault(task.name, task)
        messages += _check_task(task)
        if task.name and other is not task:
            messages.append(
                checks.Error(
                    f"{setting}: two tasks are named {task.name!r}: {_path(other)} and {_path(task)}.",
                    hint="Give one of them another `name`: clients call a task by it.",
                    obj=task,
                    id="taskapi.E003",
                )
            )
    return messages


def _entries(messages: list[CheckMessage]) -> Iterator[tuple[str, Any]]:
    """Each entry with the setting that it is in; a setting that is no list is a message."""
    for name in TASKS_SETTINGS:
        value = _value(name)
        if value is None:
            continue
        if isinstance(value, str) or not isinstance(value, Iterable):
            messages.append(
                checks.Error(
                    f"TASK_API_{name}: expected a list, got {value!r}.",
                    hint="Give a list of Task classes, or of their dotted paths.",
                    id="taskapi.E010",
                )
            )
            continue
        for entry in value:
            yield f"TASK_API_{name}", entry


def _check_task(task: type[Task]) -> Iterator[CheckMessage]:
    if not task.name:
        yield checks.Error(
            f"The task {_path(task)} has no name.",
            hint="Set `name`, the string by which clients call it.",
            obj=task,
            id="taskapi.E002",
        )
    for kind in ("inputs", "outputs"):
        spec = getattr(task, kind)
        if not isinstance(spec, dict) or not all(isinstance(parameter, Parameter) for parameter in spec.values()):
            yield checks.Error(
                f"The `{kind}` of the task {_path(task)} are not a dict of parameters.",
                hint=f"Write it as `{kind} = {{'name': StringParameter()}}`, with an instance for each.",
                obj=task,
                id="taskapi.E004",
            )
            return
    yield from _check_attributes(task)
    yield from _check_validate(task)
    yield from _check_run(task)


def _check_attributes(task: type[Task]) -> Iterator[CheckMessage]:
    """A slip here would show with the first run, or with the first one that fails."""
    for name, (fits, expected) in ATTRIBUTES.items():
        value = getattr(task, name)
        if not fits(value):
            yield checks.Error(
                f"The `{name}` of the task {_path(task)} is {value!r}.",
                hint=f"Give {expected}.",
                obj=task,
                id="taskapi.E007",
            )


def _check_validate(task: type[Task]) -> Iterator[CheckMessage]:
    """Whether `validate` can be called as each start calls it: on the class, with the inputs and the user."""
    of_class = isinstance(inspect.getattr_static(task, "validate"), (classmethod, staticmethod))
    try:
        inspect.signature(task.validate).bind({}, user=None)
    except TypeError:
        of_class = False
    if not of_class or iscoroutinefunction(task.validate):
        yield checks.Error(
            f"The `validate` of the task {_path(task)} cannot be called with the inputs and the user of a new run.",
            hint="Write `@classmethod`, and below it `def validate(cls, inputs, *, user):`. It may not be async.",
            obj=task,
            id="taskapi.E009",
        )


def _check_run(task: type[Task]) -> Iterator[CheckMessage]:
    run = getattr(task, "run", None)
    if not callable(run):
        yield checks.Error(
            f"The task {_path(task)} has no `run`.",
            hint=f"Write `def run({_signature(task)}):`.",
            obj=task,
            id="taskapi.E005",
        )
        return
    yield from _check_that_run_is_run(task)
    static = isinstance(inspect.getattr_static(task, "run"), staticmethod)
    parameters = list(inspect.signature(run).parameters.values())[0 if static or inspect.ismethod(run) else 1 :]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    problems = []
    for name, parameter in task.inputs.items():
        if name not in named:
            if not takes_any:
                problems.append(f"it does not accept the input {name!r}")
        elif named[name].default is inspect.Parameter.empty and not parameter.required and not _has_default(parameter):
            problems.append(f"the input {name!r} is optional, and `run` has no default for it")
    for name, argument in named.items():
        if name not in task.inputs and argument.default is inspect.Parameter.empty:
            problems.append(f"it needs the argument {name!r}, which is no input")
    for problem in problems:
        yield checks.Error(
            f"The `run` of the task {_path(task)} does not fit its inputs: {problem}.",
            hint=f"Write `def run({_signature(task)}):`.",
            obj=task,
            id="taskapi.E006",
        )


def _check_that_run_is_run(task: type[Task]) -> Iterator[CheckMessage]:
    """Whether a call of `run` does its work, and does not only return what would do it."""
    run = task.run
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        yield checks.Error(
            f"The `run` of the task {_path(task)} is a generator: nobody would iterate over it, so its work would not "
            "be done.",
            hint="Leave out `yield`, and tell what there is to tell by `self.add_message()`.",
            obj=task,
            id="taskapi.E008",
        )
    static = inspect.getattr_static(task, "run")
    is_sync = not iscoroutinefunction(run) and not isinstance(static, AsyncToSync)
    if is_sync and iscoroutinefunction(inspect.unwrap(run)):
        yield checks.Warning(
            f"The `run` of the task {_path(task)} is async, under a decorator that is not: if nobody awaits it there, "
            "its runs fail.",
            hint="Write the decorator's wrapper as `async def`, and `await` the function in it. If it runs the "
            "function in a loop of its own, delete its `__wrapped__`.",
            obj=task,
            id="taskapi.W008",
        )


def _has_default(parameter: Parameter) -> bool:
    return parameter.default is not empty


def _signature(task: type[Task]) -> str:
    optional = [name for name, parameter in task.inputs.items() if not parameter.required]
    required = [name for name in task.inputs if name not in optional]
    return ", ".join(["self", *required, *(f"{name}=None" for name in optional)])


def _path(task: type) -> str:
    return f"{task.__module__}.{task.__qualname__}"


# Settings


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
    ]
    errors = [
        checks.Error(f"{setting}: {problem}", hint=hint, id="taskapi.E010") for setting, problem, hint in problems
    ]
    return [*errors, *_check_names(), *_check_later_limits()]


def _check_names() -> Iterator[CheckMessage]:
    """A slip in the name of TASK_API_PERMISSIONS_CLASSES would leave the API open without a word."""
    for name in dir(django_settings):
        if name.startswith("TASK_API_") and name not in SETTINGS:
            close = difflib.get_close_matches(name, SETTINGS, 1)
            yield checks.Warning(
                f"{name} is no setting of Django Task API, so it has no effect.",
                hint=f"Did you mean {close[0]}?" if close else f"The settings are: {', '.join(SETTINGS)}.",
                id="taskapi.W002",
            )


Problem = tuple[str, str, str]  # the setting, what is wrong with it, what to do


def _value(name: str) -> Any:
    return getattr(django_settings, f"TASK_API_{name}", None)


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
    value = _value(name)
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
        hint = "Write it as redis://127.0.0.1:6379/0; it may also come from the environment's REDIS_URL."
        yield "TASK_API_REDIS_URL", f"{error}.", hint


def _check_redis_prefix() -> Iterator[Problem]:
    value = _value("REDIS_PREFIX")
    if value is not None and not (isinstance(value, str) and PREFIX.fullmatch(value)):
        hint = (
            "Give each installation that shares a Redis a name of its own, such as 'mysite-staging': at most "
            f"{MAX_PREFIX} letters, digits, hyphens, underscores and full stops. 'taskapi' is the default."
        )
        yield "TASK_API_REDIS_PREFIX", f"expected a short name, got {value!r}.", hint


def _check_event_interval() -> Iterator[Problem]:
    value = _value("EVENT_INTERVAL")
    if value is not None and not _is_seconds(value):
        yield "TASK_API_EVENT_INTERVAL", f"expected seconds, 0 or more, got {value!r}.", "0.05 is the default."


def _check_retention() -> Iterator[Problem]:
    value = _value("RETENTION")
    if value is not None and not _is_duration(value):
        hint = "None keeps finished runs for ever."
        yield "TASK_API_RETENTION", f"expected seconds, a timedelta or None, got {value!r}.", hint


def _check_limits() -> Iterator[Problem]:
    value = _value("LIMITS")
    if value is None:
        return
    if not isinstance(value, Mapping):
        hint = f"Give a dict such as {DEFAULT_LIMITS}; what it leaves out keeps its default."
        yield "TASK_API_LIMITS", f"expected a dict, got {value!r}.", hint
        return
    for name, limit in value.items():
        if name in LATER_LIMITS:
            continue
        if name not in DEFAULT_LIMITS:
            hint = f"The limits are: {', '.join(DEFAULT_LIMITS)}."
            yield "TASK_API_LIMITS", f"there is no limit named {name!r}.", hint
        elif type(limit) is not int or limit < LEAST_FRAME:
            hint = f"{DEFAULT_LIMITS[name]} is the default. Give daphne the same as --websocket-max-message-size."
            yield "TASK_API_LIMITS", f"{name!r} is a whole number of bytes, {LEAST_FRAME} or more, not {limit!r}.", hint


def _check_later_limits() -> Iterator[CheckMessage]:
    value = _value("LIMITS")
    names = [name for name in LATER_LIMITS if isinstance(value, Mapping) and name in value]
    if names:
        yield checks.Warning(
            f"TASK_API_LIMITS: {', '.join(map(repr, names))} will be limits of a later version, and bound nothing yet.",
            hint=f"Take them out. The limits that hold are: {', '.join(DEFAULT_LIMITS)}.",
            id="taskapi.W010",
        )


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_duration(value: Any) -> bool:
    return _is_seconds(value.total_seconds() if isinstance(value, timedelta) else value)


def _are_exceptions(value: Any) -> bool:
    return isinstance(value, tuple) and all(inspect.isclass(entry) and issubclass(entry, Exception) for entry in value)


ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {  # what may be there, and how to say so
    "queue": (lambda value: isinstance(value, str) and value != "", "the name of a queue"),
    "timeout": (lambda value: value is None or (_is_seconds(value) and value > 0), "seconds, more than 0, or None"),
    "max_attempts": (lambda value: type(value) is int and value > 0, "a whole number, 1 or more"),
    "retry_on": (_are_exceptions, "a tuple of subclasses of Exception, such as (ConnectionError,)"),
    "retry_delay": (_is_seconds, "seconds, 0 or more"),
    "retain": (lambda value: value in (..., None) or _is_duration(value), "seconds, a timedelta, or None for ever"),
    "isolation": (lambda value: value in (None, "process"), "'process', or None"),
}


# Channel layer


def check_channel_layer(**kwargs: Any) -> list[CheckMessage]:
    """Events reach the processes that serve sockets."""
    alias = settings.channel_layer_alias()
    if alias is None:
        return []
    layers: Any = getattr(django_settings, "CHANNEL_LAYERS", {})
    path = layers[alias].get("BACKEND", "")
    try:
        import_string(path)
    except ImportError as error:
        return [
            checks.Error(
                f"CHANNEL_LAYERS[{alias!r}]: the backend {path!r} cannot be imported: {error}",
                hint="Use 'channels_redis.pubsub.RedisPubSubChannelLayer', or take the layer out: events then travel "
                "over one of our own, at TASK_API_REDIS_URL.",
                id="taskapi.E020",
            )
        ]
    if path == IN_MEMORY_LAYER and _other_processes():
        return [
            checks.Error(
                f"CHANNEL_LAYERS[{alias!r}] is in memory, and tasks run in other processes: no event would arrive.",
                hint="Use 'channels_redis.pubsub.RedisPubSubChannelLayer' with your Redis in CONFIG['hosts'], for "
                f"this alias or for {CHANNEL_LAYER_ALIASES[0]!r}; or take the layer out: events then travel over "
                "one of our own, at TASK_API_REDIS_URL.",
                id="taskapi.E021",
            )
        ]
    return []


def _other_processes() -> bool:
    try:
        return get_backend().other_processes
    except Exception:  # noqa: BLE001 - check_settings says what is wrong with it
        return False


# SQLite


def check_sqlite(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A SQLite that several processes write to waits for its lock, and does not lock out readers."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "sqlite" or connection.is_in_memory_db():  # type: ignore[attr-defined]  # sqlite's own
            continue
        with connection.cursor() as cursor:
            (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
            (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        begins = connection.transaction_mode or "DEFERRED"  # type: ignore[attr-defined]  # sqlite's own
        if mode.lower() != "wal" or timeout < BUSY_TIMEOUT * 1000 or begins == "DEFERRED":
            messages.append(
                checks.Warning(
                    f"DATABASES[{alias!r}] is SQLite with journal_mode={mode} and busy_timeout={timeout} ms, whose "
                    f"transactions begin {begins}: a worker and a server that write at once will see “database is "
                    "locked”.",
                    hint="Set OPTIONS = {'timeout': 20, 'transaction_mode': 'IMMEDIATE', 'init_command': "
                    "'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'}.",
                    id="taskapi.W001",
                )
            )
    return messages


# PostgreSQL


def check_postgresql(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A PostgreSQL on another host is given up when it goes away without a word."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        options = connection.settings_dict.get("OPTIONS", {})
        if connection.vendor != "postgresql" or "service" in options:  # whose file may have the options
            continue
        host = str(options.get("host", connection.settings_dict.get("HOST", "")))
        if host == "" or host.startswith(("/", "@")):  # a Unix socket
            continue
        missing = []
        if "connect_timeout" not in options and "PGCONNECT_TIMEOUT" not in os.environ:
            missing.append("connect_timeout")
        if not options.keys() & {"tcp_user_timeout", "keepalives_idle"}:
            missing.append("tcp_user_timeout")
        if missing:
            messages.append(
                checks.Warning(
                    f"DATABASES[{alias!r}] is PostgreSQL without {' and '.join(missing)}: if its host goes away "
                    "without a word, requests and tasks wait for a quarter of an hour.",
                    hint="Add to OPTIONS: {'connect_timeout': 5, 'tcp_user_timeout': 10000, 'keepalives_idle': 5, "
                    "'keepalives_interval': 2, 'keepalives_count': 3}.",
                    id="taskapi.W009",
                )
            )
    return messages
