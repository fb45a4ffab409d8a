"""Whether there is a storage for the files of tasks, and whether each row that an input names can be found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist
from django.core.files.storage import FileSystemStorage, InMemoryStorage, InvalidStorageError

from taskapi.backends import get_backend
from taskapi.conf import settings
from taskapi.params import FileParameter, ModelParameter, Parameter
from taskapi.params.base import with_children
from taskapi.storage import alias, get_storage
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks

FOR_FILES = "Name a storage in STORAGES, as 'taskapi' or as 'default'. For files on this machine, set MEDIA_ROOT."


def check_files(**kwargs: Any) -> list[CheckMessage]:
    """What files and rows among the inputs and outputs of tasks need."""
    try:
        found = list(_parameters())
    except (ImportError, TypeError, AttributeError):  # `check_tasks` says which entry of the list is wrong
        return []
    messages = [message for task, parameter in found for message in _check_rows(task, parameter)]
    keeps_files = settings.offload_bytes is not None or any(isinstance(one, FileParameter) for _, one in found)
    return [*messages, *_check_storage()] if keeps_files else messages


def _parameters() -> Iterator[tuple[type[Task], Parameter]]:
    for task in tasks().values():
        for parameter in (*task.inputs.values(), *task.outputs.values()):
            for one in with_children(parameter):
                yield task, one


def _check_rows(task: type[Task], parameter: Parameter) -> Iterator[CheckMessage]:
    if not isinstance(parameter, ModelParameter):
        return
    try:
        problem = parameter.problem()
    except FieldDoesNotExist as error:
        problem = str(error)
    if problem:
        yield checks.Error(
            f"The task {task.__module__}.{task.__qualname__} has {parameter!r}: {problem}.",
            hint="Give `field` the name of a field of the model whose values are unique, such as 'pk' or 'slug'.",
            obj=task,
            id="taskapi.E011",
        )


def _check_storage() -> Iterator[CheckMessage]:
    name = f"The storage of the files of tasks, STORAGES[{alias()!r}],"
    try:
        storage: Any = get_storage()
    except (InvalidStorageError, ImportError, TypeError) as error:
        yield checks.Error(f"{name} cannot be used: {error}", hint=FOR_FILES, id="taskapi.E022")
        return
    if not hasattr(storage, "_save"):
        yield checks.Error(f"{name} cannot save files.", hint=FOR_FILES, id="taskapi.E022")
    elif isinstance(storage, FileSystemStorage) and not storage.base_location:
        problem = f"{name} would keep them in the directory in which the server was started: MEDIA_ROOT is not set."
        yield checks.Error(problem, hint=FOR_FILES, id="taskapi.E022")
    elif isinstance(storage, InMemoryStorage) and _has_other_processes():
        problem = f"{name} is in the memory of one process, and tasks run in others."
        yield checks.Error(problem, hint=FOR_FILES, id="taskapi.E023")


def _has_other_processes() -> bool:
    try:
        return get_backend().other_processes
    except Exception:  # noqa: BLE001 - `check_settings` says what is wrong with it
        return False
