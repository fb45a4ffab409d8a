"""The Django app."""

from django.apps import AppConfig, apps
from django.contrib.auth import get_user_model
from django.db.models.signals import pre_delete


class TaskAPIConfig(AppConfig):
    """Registers the system checks and the signal handlers, and watches whether this process serves."""

    name = "taskapi"
    verbose_name = "Task API"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from taskapi import models  # they can be imported only now
        from taskapi.engines import serving
        from taskapi.management import checks

        checks.register()
        if apps.is_installed("drf_spectacular"):  # its document has our calls, too; without it, it may not be there
            from taskapi.schemas import openapi  # noqa: F401 - registers an extension of drf-spectacular
        serving.watch()
        user = get_user_model()
        for model in apps.get_models():
            if issubclass(model, user):  # a proxy has signals of its own
                pre_delete.connect(models.before_user_deletion, sender=model, dispatch_uid="taskapi")
