"""Where tasks are found: the classes of TASK_API_BACKGROUND_TASKS, by name."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from django.core.signals import setting_changed
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


@cache
def tasks() -> dict[str, type[Task]]:
    """Every registered task, by its name."""
    return {task.name: task for task in map(load, settings.background_tasks)}


def get_task(name: str) -> type[Task]:
    """The task of this name, or UnknownTask."""
    try:
        return tasks()[name]
    except KeyError:
        raise UnknownTask(name) from None


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("TASK_API_BACKGROUND_"):
        tasks.cache_clear()


setting_changed.connect(_forget)
