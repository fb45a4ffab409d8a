"""Where tasks are found: the classes of TASK_API_BACKGROUND_TASKS, by name."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from taskapi.conf import settings
from taskapi.exceptions import UnknownTask
from taskapi.tasks import Task


def load(entry: Any) -> type[Task]:
    """The class of one entry of the setting; ImportError or TypeError with a sentence."""
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
