"""System checks: they find what is wrong with a project before its users do, and name the remedy."""

from django.core import checks

from taskapi.management.checks.channel_layer import check_channel_layer
from taskapi.management.checks.databases import check_postgresql, check_sqlite
from taskapi.management.checks.files import check_files
from taskapi.management.checks.local import check_local_backend
from taskapi.management.checks.servers import check_servers
from taskapi.management.checks.settings import check_settings
from taskapi.management.checks.tasks import check_tasks
from taskapi.management.checks.workers import check_workers


def register() -> None:
    checks.register(check_tasks, "taskapi")
    checks.register(check_settings, "taskapi")
    checks.register(check_files, "taskapi")
    checks.register(check_channel_layer, "taskapi")
    checks.register(check_local_backend, "taskapi", deploy=True)
    checks.register(check_servers, "taskapi")
    checks.register(check_workers, "taskapi", deploy=True)
    checks.register(check_sqlite, "taskapi", checks.Tags.database)
    checks.register(check_postgresql, "taskapi", checks.Tags.database)
