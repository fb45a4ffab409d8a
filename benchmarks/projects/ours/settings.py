from benchmarks.projects.common import *  # noqa: F403
from benchmarks.projects.common import INSTALLED_APPS, REDIS_URL

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework", "taskapi"]
ROOT_URLCONF = "benchmarks.projects.ours.urls"

TASK_API_REDIS_URL = REDIS_URL
TASK_API_BACKGROUND_TASKS = [
    "benchmarks.projects.ours.background.Sum",
    "benchmarks.projects.ours.background.Pace",
    "benchmarks.projects.ours.background.Compute",
    "benchmarks.projects.ours.background.Tell",
    "benchmarks.projects.ours.background.Stamp",
    "benchmarks.projects.ours.background.Say",
]
