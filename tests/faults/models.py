"""A project's model that points to runs and protects them from being deleted."""

from django.db import models

from taskapi.models import TaskInfo


class Bill(models.Model):
    """A bill for a run: while it exists, the run cannot be deleted."""

    run = models.ForeignKey(TaskInfo, on_delete=models.PROTECT)

    def __str__(self) -> str:
        return f"the bill for run {self.run_id}"
