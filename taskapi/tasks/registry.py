"""Where tasks are found: the classes of TASK_API_BACKGROUND_TASKS, by name."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.db import connections
from django.utils.module_loading import import_string

from taskapi.conf import settings
from taskapi.exceptions import UnknownTask
from taskapi.params import FileParameter
from taskapi.params.base import with_children
from taskapi.tasks.base import Task


def load(entry: Any) -> type[Task]:
    """The class of one entry of the setting; ImportError or TypeError that says why there is none."""
    task = import_string(entry) if isinstance(entry, str) else entry
    if not (inspect.isclass(task) and issubclass(task, Task)):
        raise TypeError(f"expected a subclass of taskapi.tasks.Task, got {task!r}")
    return task


def tasks() -> dict[str, type[Task]]:
    """Every registered task, by its name."""
    return _tasks(settings.background_tasks)


@lru_cache(maxsize=4)
def _tasks(entries: tuple[Any, ...]) -> dict[str, type[Task]]:
    return {task.name: task for task in map(load, entries)}


def get_task(name: str) -> type[Task]:
    """The task of this name, or UnknownTask."""
    try:
        return tasks()[name]
    except KeyError:
        raise UnknownTask(name) from None


def returns_files(name: str) -> bool:
    """Whether the task of this name has files among its outputs; False if it is not known here."""
    task = tasks().get(name)
    if task is None:
        return False
    return any(isinstance(one, FileParameter) for output in task.outputs.values() for one in with_children(output))


def version() -> str:
    """Equal in all workers that can execute the same runs: they have this database, and this code of these tasks."""
    return _version(settings.background_tasks, _installation())


def _installation() -> str:
    """Which of several installations this is: by its databases, and by its secret, as databases may share a name."""
    addresses = [
        [database.get(name) for name in ("HOST", "PORT", "NAME")] for database in connections.settings.values()
    ]
    return json.dumps([addresses, django_settings.SECRET_KEY], default=str)


@lru_cache(maxsize=4)
def _version(entries: tuple[Any, ...], installation: str) -> str:
    digest = hashlib.sha256(installation.encode())
    for name, task in sorted(_tasks(entries).items()):
        digest.update(f"\0{name}\0{_declaration(task)}\0".encode(errors="surrogatepass"))
        with suppress(OSError, TypeError):  # what was typed into a shell has no file
            digest.update(Path(inspect.getfile(task)).read_bytes())
    return digest.hexdigest()[:16]


def _declaration(task: type[Task]) -> str:
    """What tells two versions of a task apart without its source."""
    try:
        return json.dumps(task.describe(), sort_keys=True, default=str)
    except Exception:  # noqa: BLE001 - a parameter of the project's own may raise anything about its schema
        return " ".join(task.inputs)
