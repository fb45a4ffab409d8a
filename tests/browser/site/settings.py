"""The tests' project, with the page, and with tasks that run until a test lets them end."""

from tests.project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.browser.site.urls"
TASK_API_BACKGROUND_TASKS = [
    "tests.browser.site.tasks.Talk",
    "tests.browser.site.tasks.AsyncTalk",
    "tests.browser.site.tasks.Unserved",
    "tests.browser.site.tasks.Mark",
    "tests.browser.site.tasks.Chatter",
    "tests.browser.site.tasks.ImportPeople",
    "tests.project.filed.Digest",
]
UPLOAD_BYTES = 101 * 2**20
TASK_API_LIMITS = {"upload_bytes": UPLOAD_BYTES}
