"""A model of a project that points to runs, and does not let them go."""

from django.db import models

from taskapi.models import TaskInfo


class Bill(models.Model):
    """What somebody owes for a run: as long as there is one, the run cannot be deleted."""

    run = models.ForeignKey(TaskInfo, on_delete=models.PROTECT)

    def __str__(self) -> str:
        return f"the bill for run {self.run_id}"
