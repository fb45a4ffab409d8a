from benchmarks.projects.common import *  # noqa: F403
from benchmarks.projects.common import INSTALLED_APPS, REDIS_URL

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework", "task_api"]
ROOT_URLCONF = "benchmarks.projects.task_api_1.urls"

CELERY_BROKER_URL = REDIS_URL
TASK_API_BACKGROUND_TASKS = [
    "benchmarks.projects.task_api_1.background.Sum",
    "benchmarks.projects.task_api_1.background.Pace",
    "benchmarks.projects.task_api_1.background.Compute",
]
