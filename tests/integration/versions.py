"""The test project at one moment or another of its history: TEST_VERSION names the declaration that it has."""

import os

from tests.project.settings import *  # noqa: F403

if "TEST_VERSION" in os.environ:
    TASK_API_BACKGROUND_TASKS = [f"tests.integration.declarations.{os.environ['TEST_VERSION']}"]
