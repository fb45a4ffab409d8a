"""The one way up in the layers: methods of `Task` and `TaskInfo` that `taskapi.runs` executes.

A Task can be imported while Django reads its settings, and a model while Django loads the apps. `taskapi.runs` needs
both. So it is imported here, when it is called for; `pyproject.toml` declares this one exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Unpack

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady

if TYPE_CHECKING:
    from taskapi.models import TaskInfo
    from taskapi.tasks.base import StartOptions, Task


class Runs(Protocol):
    """What those methods use of `taskapi.runs`; mypy checks that the module has it."""

    def start(self, task: type[Task], inputs: Any, **options: Unpack[StartOptions]) -> TaskInfo: ...

    def cancel(self, info: TaskInfo) -> bool: ...

    def retry(self, info: TaskInfo) -> TaskInfo: ...


def runs() -> Runs:
    """The module `taskapi.runs`; AppRegistryNotReady before Django has loaded the apps."""
    if not apps.models_ready:
        raise AppRegistryNotReady("Runs can be started once Django has loaded the app 'taskapi'.")
    from taskapi import runs  # not at the top: see above

    return runs
