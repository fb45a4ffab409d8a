"""A small project around taskapi: the settings of the unit tests, and of the servers of integration tests.

TEST_DATABASE and TEST_REDIS_URL name the database and the Redis of these servers. The names are not the usual ones, so
that no test writes to the REDIS_URL of a developer's environment.
"""

import json
import os

SECRET_KEY = "tests"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
ROOT_URLCONF = "tests.project.urls"
ASGI_APPLICATION = "tests.project.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # slow hashers would only cost time here
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
STATIC_URL = "static/"
MEDIA_ROOT = os.environ.get("TEST_MEDIA_ROOT", "/nowhere")  # a test that stores files says where
TIME_ZONE = "UTC"
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "taskapi",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# SQLite as docs recommend it: readers do not wait for the writer, and writers wait for each other.
SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}
DATABASES = {
    "default": json.loads(os.environ["TEST_DATABASE"])
    if "TEST_DATABASE" in os.environ
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS

# Nothing listens on port 1: a test that uses Redis without a fixture for it fails at once.
TASK_API_REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:1/0")
TASK_API_REDIS_PREFIX = os.environ.get("TEST_REDIS_PREFIX")  # None: not set
TASK_API_BACKGROUND_TASKS = [
    "tests.project.tasks.Sum",
    "tests.project.tasks.AsyncSum",
    "tests.project.tasks.Count",
    "tests.project.tasks.AsyncCount",
    "tests.project.tasks.Say",
    "tests.project.tasks.Hold",
    "tests.project.tasks.AsyncHold",
    "tests.project.tasks.Refuse",
    "tests.project.tasks.Crash",
    "tests.project.tasks.AsideHold",
    "tests.project.tasks.AsideAsyncHold",
    "tests.project.tasks.AsidePatient",
    "tests.project.tasks.AsideQuick",
    "tests.project.tasks.AddUser",
    "tests.project.tasks.AsyncAddUser",
    "tests.project.tasks.Rollback",
    "tests.project.tasks.WhoAmI",
    "tests.project.isolated.Alone",
    "tests.project.isolated.AsyncAlone",
    "tests.project.isolated.Whereabouts",
    "tests.project.isolated.AloneForUser",
    "tests.project.isolated.AloneFails",
    "tests.project.isolated.AloneLate",
    "tests.project.isolated.AsyncAloneLate",
    "tests.project.isolated.AloneLingers",
    "tests.project.isolated.AlonePatient",
    "tests.project.isolated.AsyncAlonePatient",
    "tests.project.isolated.Stuck",
    "tests.project.isolated.StuckForAWhile",
    "tests.project.harsh.Fork",
    "tests.project.harsh.AloneFork",
    "tests.project.harsh.AsyncFork",
    "tests.project.harsh.Exit",
    "tests.project.harsh.LeavesThreads",
    "tests.project.harsh.DefaultExit",
    "tests.project.harsh.DefaultLeavesThreads",
    "tests.project.filed.Digest",
    "tests.project.filed.AsyncDigest",
    "tests.project.filed.AloneDigest",
    "tests.project.filed.GiveBack",
    "tests.project.filed.AloneGiveBack",
    "tests.project.filed.AsyncGiveBack",
    "tests.project.filed.AsideGated",
    "tests.project.filed.AsideAloneGated",
    "tests.project.filed.Make",
]
