"""The test project in one of its versions: TEST_VERSION names the declaration of its task."""

import os

from tests.project.settings import *  # noqa: F403

if "TEST_VERSION" in os.environ:
    TASK_API_BACKGROUND_TASKS = [f"tests.integration.declarations.{os.environ['TEST_VERSION']}"]
