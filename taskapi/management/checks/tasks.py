"""Whether every task of the project can be run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asgiref.sync import AsyncToSync, iscoroutinefunction
from django.core import checks
from django.core.checks import CheckMessage
from rest_framework.fields import empty

from taskapi.conf import TASKS_SETTINGS
from taskapi.management.checks.values import is_duration, is_seconds, value_of
from taskapi.params import Parameter
from taskapi.tasks import Task
from taskapi.tasks.registry import load


def _are_exceptions(value: Any) -> bool:
    return isinstance(value, tuple) and all(inspect.isclass(entry) and issubclass(entry, Exception) for entry in value)


ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {  # whether a value fits, and what is expected
    "queue": (lambda value: isinstance(value, str) and value != "", "the name of a queue"),
    "timeout": (lambda value: value is None or (is_seconds(value) and value > 0), "seconds, more than 0, or None"),
    "max_attempts": (lambda value: type(value) is int and value > 0, "a whole number, 1 or more"),
    "retry_on": (_are_exceptions, "a tuple of subclasses of Exception, such as (ConnectionError,)"),
    "retry_delay": (is_seconds, "seconds, 0 or more"),
    "retain": (lambda value: value in (..., None) or is_duration(value), "seconds, a timedelta, or None for ever"),
    "isolation": (lambda value: value in (None, "process"), "'process', or None"),
}


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
    if not messages and not by_name:
        messages.append(
            checks.Warning(
                "TASK_API_BACKGROUND_TASKS is empty, so no task can be run.",
                hint="Name your Task classes in it: TASK_API_BACKGROUND_TASKS = ['myapp.background.MyTask'].",
                id="taskapi.W013",
            )
        )
    return messages


def _entries(messages: list[CheckMessage]) -> Iterator[tuple[str, Any]]:
    """Each entry with the name of its setting; a setting that is not a list adds a message."""
    for name in TASKS_SETTINGS:
        value = value_of(name)
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
    """Without this check, a mistake would show only with the first run, or with the first that fails."""
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
    yield from _check_call_of_run(task)
    static = isinstance(inspect.getattr_static(task, "run"), staticmethod)
    parameters = list(inspect.signature(run).parameters.values())[0 if static or inspect.ismethod(run) else 1 :]
    for problem in _misfits(task, parameters):
        yield checks.Error(
            f"The `run` of the task {_path(task)} does not fit its inputs: {problem}.",
            hint=f"Write `def run({_signature(task)}):`.",
            obj=task,
            id="taskapi.E006",
        )


def _misfits(task: type[Task], parameters: list[inspect.Parameter]) -> Iterator[str]:
    """What does not fit between the inputs of the task and the parameters of its `run`."""
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name, given in task.inputs.items():
        if name not in named:
            if not takes_any:
                yield f"it does not accept the input {name!r}"
        elif named[name].default is inspect.Parameter.empty and not given.required and not _has_default(given):
            yield f"the input {name!r} is optional, and `run` has no default for it"
    for name, argument in named.items():
        if name not in task.inputs and argument.default is inspect.Parameter.empty:
            yield f"it needs the argument {name!r}, which is not an input"


def _check_call_of_run(task: type[Task]) -> Iterator[CheckMessage]:
    """A call of `run` must do the work, and not return a generator or coroutine that would do it."""
    run = task.run
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        yield checks.Error(
            f"The `run` of the task {_path(task)} is a generator: nobody would iterate over it, so its work would not "
            "be done.",
            hint="Remove `yield`. Send what it yields with `self.add_message()`.",
            obj=task,
            id="taskapi.E008",
        )
    static = inspect.getattr_static(task, "run")
    is_sync = not iscoroutinefunction(run) and not isinstance(static, AsyncToSync)
    if is_sync and iscoroutinefunction(inspect.unwrap(run)):
        yield checks.Warning(
            f"The `run` of the task {_path(task)} is async, under a decorator that is not async. If the decorator "
            "does not await it, its runs fail.",
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
