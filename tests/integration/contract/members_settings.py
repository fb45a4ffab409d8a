"""The same project with a login required, as the 1.x documentation does it."""

from tests.integration.contract.settings import *  # noqa: F403

TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
