"""The settings of `tests.integration.bodies`."""

from tests.project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.integration.bodies"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
