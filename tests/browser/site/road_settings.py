"""The site's settings, with logins, CSRF without a readable cookie, and other origins."""

import os

from tests.browser.site.settings import *  # noqa: F403
from tests.browser.site.settings import MIDDLEWARE, TASK_API_BACKGROUND_TASKS

ROOT_URLCONF = "tests.browser.site.road"
MIDDLEWARE = ["tests.browser.site.cors.cors", *MIDDLEWARE]
TASK_API_BACKGROUND_TASKS = [
    *TASK_API_BACKGROUND_TASKS,
    "tests.browser.site.road_tasks.Large",
    "tests.project.tasks.WhoAmI",
]
CSRF_COOKIE_HTTPONLY = os.environ.get("SITE_CSRF") == "httponly"
CSRF_USE_SESSIONS = os.environ.get("SITE_CSRF") == "sessions"
