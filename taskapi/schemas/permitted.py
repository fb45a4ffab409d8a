"""The tasks that a caller may run: the documents have those and no others."""

from __future__ import annotations

from rest_framework.request import clone_request

from taskapi.runs.access import TaskAPIView
from taskapi.runs.refusals import REFUSALS
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks


def permitted_tasks(view: TaskAPIView) -> list[type[Task]]:
    """The tasks that the caller of the view may start a run of, by name."""
    request = view.request
    try:
        return [task for _, task in sorted(tasks().items()) if _may_run(view, request, task)]
    finally:
        view.task, view.request = None, request


def _may_run(view: TaskAPIView, request: object, task: type[Task]) -> bool:
    """The verdict of the call that would start a run of the task without inputs."""
    view.task = task
    view.request = clone_request(request, "POST")  # type: ignore[arg-type]
    view.request._full_data = {"task": task.name, "inputs": {}}  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        view.check_permissions(view.request)
    except REFUSALS:
        return False
    return True
