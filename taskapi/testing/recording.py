"""Tests of what is started, without executing it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from taskapi.backends import Backend
from taskapi.models import TaskInfo
from taskapi.tasks import Task


class RecordingBackend(Backend):
    """Executes nothing: a run stays as it was recorded, and `started_runs` finds it."""

    other_processes = False
    events_in_process = True

    def enqueue(self, uuid: UUID, *, queue: str, run_at: datetime | None = None) -> None:
        """The row is the record."""


def started_runs(task: type[Task] | None = None) -> list[TaskInfo]:
    """The runs that were started and not executed, in order; of this task, if one is given.

    Inside the transaction of a TestCase, too, where nothing is committed. A run that was rolled back is not among them,
    nor one that `run_task` has executed.
    """
    found = TaskInfo.rows().filter(attempt=0).order_by("id")
    return list(found if task is None else found.filter(task=task.name))
