"""The same project with a login required, in the way of the 1.x documentation."""

from tests.integration.contract.settings import *  # noqa: F403

TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
