"""``tasks/types/``: the tasks that the caller may run."""

from __future__ import annotations

import logging
from inspect import cleandoc
from typing import Any

from rest_framework.request import Request, clone_request
from rest_framework.response import Response

from taskapi.protocol import encode
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks
from taskapi.views.base import View
from taskapi.views.verdicts import passes

logger = logging.getLogger(__name__)


class TypesView(View):
    """``tasks/types/``"""

    def get(self, request: Request) -> Response:
        """The tasks that the caller may run, by name, with their inputs and outputs as JSON Schema."""
        found = [describe(task) for _, task in sorted(tasks().items()) if self._may_run(request, task)]
        return Response(found)

    def _may_run(self, request: Request, task: type[Task]) -> bool:
        """The verdict of the call that would start a run of the task without inputs."""
        self.task = task
        self.request = clone_request(request, "POST")
        # DRF has no other way to give a request its data
        self.request._full_data = {"task": task.name, "inputs": {}}  # type: ignore[attr-defined]  # noqa: SLF001
        return passes(self.check_permissions, self.request)


def describe(task: type[Task]) -> dict[str, Any]:
    """As `Task.describe`. If that fails, the schemas take everything (``{}``), and the log says why."""
    try:
        described = task.describe()
        encode(described)
    except Exception:
        # A parameter of the project's own may raise anything about its schema, and the other tasks are well.
        logger.exception("The task %r cannot be described. Look at the `json_schema` of its parameters.", task.name)
        return {"name": task.name, "description": cleandoc(task.__doc__ or ""), "inputs": {}, "outputs": {}}
    return described
