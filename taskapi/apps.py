"""The Django app: where the layers are tied together."""

from django.apps import AppConfig


class TaskAPIConfig(AppConfig):
    """Registers the system checks, and hands the models what stands above them."""

    name = "taskapi"
    verbose_name = "Task API"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from taskapi import checks, runs  # models can be imported only now
        from taskapi.models import TaskInfo

        checks.register()
        TaskInfo.doors = runs
