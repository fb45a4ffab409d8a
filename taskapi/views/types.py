"""``tasks/types/``: the tasks that the caller may run."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.tasks.describing import described
from taskapi.views.base import View


class TypesView(View):
    """``tasks/types/``"""

    def get(self, request: Request) -> Response:
        """The tasks that the caller may run, by name, with their inputs and outputs as JSON Schema."""
        return Response([described(task) for task in self.permitted_tasks()])
