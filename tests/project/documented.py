"""The settings of a project that has drf-spectacular already: OAS_VERSION is its version of OpenAPI."""

import os

from tests.project.settings import *  # noqa: F403 - settings are extended so
from tests.project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "drf_spectacular"]
ROOT_URLCONF = "tests.project.documented_urls"
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS = {
    "TITLE": "A project",
    **({"OAS_VERSION": os.environ["OAS_VERSION"]} if "OAS_VERSION" in os.environ else {}),
}
