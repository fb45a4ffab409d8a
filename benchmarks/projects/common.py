"""The settings of all measured projects: one database, one Redis, no middleware, nothing else."""

import json
import os

SECRET_KEY = "benchmarks"  # noqa: S105 - it protects nothing
ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
MIDDLEWARE = []
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]

DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # The same SQLite for all of them: readers do not wait for the writer, and writers wait for each other.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }

REDIS_URL = os.environ["BENCH_REDIS_URL"]
