"""The project whose AsyncAPI document is kept here; tests/unit/test_documents.py says how it is written."""

from tests.project.settings import *  # noqa: F403 - settings are extended so

TASK_API_BACKGROUND_TASKS = [
    "tests.documents.tasks.Report",
    "tests.documents.tasks.Purge",
    "tests.documents.tasks.Mute",
]
