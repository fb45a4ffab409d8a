"""The site's settings, with pages that follow a run with htmx, under a strict Content Security Policy."""

from pathlib import Path

from tests.browser.site.settings import *  # noqa: F403
from tests.browser.site.settings import INSTALLED_APPS, MIDDLEWARE, TASK_API_BACKGROUND_TASKS, TEMPLATES
from tests.project import settings as project

MODULES = Path(__file__).parents[3] / "frontend" / "node_modules"

ROOT_URLCONF = "tests.browser.site.htmx"
INSTALLED_APPS = [*INSTALLED_APPS, "tests.browser.site"]
TEMPLATES = [{**TEMPLATES[0], "DIRS": [Path(__file__).with_name("templates")]}]
MIDDLEWARE = ["tests.browser.site.htmx.strict", *MIDDLEWARE]
STATICFILES_DIRS = [
    ("htmx4", MODULES / "htmx-4" / "dist"),
    ("htmx2", MODULES / "htmx.org" / "dist"),
    ("htmx2-sse", MODULES / "htmx-ext-sse" / "dist"),
]
TASK_API_BACKGROUND_TASKS = [
    *TASK_API_BACKGROUND_TASKS,
    *project.TASK_API_BACKGROUND_TASKS,
    "tests.browser.site.htmx_tasks.Steps",
    "tests.browser.site.htmx_tasks.Report",
    "tests.browser.site.htmx_tasks.Queries",
]
