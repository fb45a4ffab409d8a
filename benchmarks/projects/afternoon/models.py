from uuid import uuid4

from django.db import models


class Job(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid4)
    task = models.CharField(max_length=100)
    status = models.CharField(max_length=20, default="pending")
    progress = models.IntegerField(default=0)
    inputs = models.JSONField()
    result = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.task} {self.id}"

    @property
    def group(self) -> str:
        return f"job_{self.id}"
