"""The project that schemathesis calls with whatever comes to its mind: tasks that take anything and end at once."""

from tests.project.settings import *  # noqa: F403 - settings are extended so

TASK_API_BACKGROUND_TASKS = [
    "tests.project.fuzzed_tasks.Everything",
    "tests.project.fuzzed_tasks.Nothing",
    "tests.project.fuzzed_tasks.Talk",
    "tests.project.fuzzed_tasks.Refuse",
    "tests.project.tasks.Sum",
    "tests.project.tasks.WhoAmI",
]
