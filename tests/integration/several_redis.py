"""The test project with the channel layer that a test chooses."""

import json
import os

from tests.project.settings import *  # noqa: F403

if "TEST_CHANNEL_LAYER" in os.environ:
    CHANNEL_LAYERS = {"taskapi": json.loads(os.environ["TEST_CHANNEL_LAYER"])}
