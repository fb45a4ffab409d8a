"""The one import that points up in the layers: `Task.start()` and `info.cancel()` call `taskapi.runs`.

A Task may be imported while Django reads its settings, and a model while Django loads the apps: too early for
`taskapi.runs`. So it is imported when one of those methods is called. `pyproject.toml` declares this exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady

if TYPE_CHECKING:
    from taskapi.models import TaskInfo
    from taskapi.tasks.base import StartOptions, Task


class RunsModule(Protocol):
    """What those methods use of `taskapi.runs`; mypy checks that the module has it."""

    def start(self, task: type[Task], inputs: Any, **options: Unpack[StartOptions]) -> TaskInfo: ...

    def start_many(self, task: type[Task], many: Iterable[Any], **options: Unpack[StartOptions]) -> list[TaskInfo]: ...

    def cancel(self, info: TaskInfo) -> bool: ...

    def retry(self, info: TaskInfo) -> TaskInfo: ...


def runs() -> RunsModule:
    """The module `taskapi.runs`; AppRegistryNotReady before Django has loaded the apps."""
    if not apps.models_ready:
        raise AppRegistryNotReady("Runs can be started once Django has loaded the app 'taskapi'.")
    from taskapi import runs  # too early at the top of the file

    return runs
