"""The one knot in the layers, and where it is untied.

`Task.start()` and `info.cancel()` are what users know, and what they do is in `taskapi.runs`, far above the
classes that they are methods of: a Task has to be importable while Django reads its settings, and a model
while it loads the apps. So those methods call `doors.runs`, and the app config, which stands above all,
puts `taskapi.runs` there in `ready()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from django.core.exceptions import AppRegistryNotReady

if TYPE_CHECKING:
    from taskapi.models import TaskInfo


class Runs(Protocol):
    """What `taskapi.runs` does for the methods below it."""

    def start(self, task: Any, inputs: Any, **options: Any) -> TaskInfo: ...

    def cancel(self, info: TaskInfo) -> bool: ...

    def retry(self, info: TaskInfo) -> TaskInfo: ...


class _Doors:
    runs: Runs

    def __getattr__(self, name: str) -> Any:
        raise AppRegistryNotReady("Runs can be started once Django has loaded the app 'taskapi'.")


doors = _Doors()
