"""The Django app: where the layers are tied together."""

from django.apps import AppConfig


class TaskAPIConfig(AppConfig):
    """Registers the system checks, and hands the tasks and models what stands above them."""

    name = "taskapi"
    verbose_name = "Task API"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from taskapi import checks, runs  # models can be imported only now
        from taskapi.doors import doors

        checks.register()
        doors.runs = runs
