"""The demo's settings: what a project needs for taskapi, and little else. Copy what you like."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
DATA_DIR = Path(os.environ.get("DEMO_DATA_DIR", BASE_DIR / "var"))

# --- Django Task API -------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "daphne",  # `runserver` serves the WebSocket, too
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "taskapi",
    "demo",
]

TASK_API_BACKGROUND_TASKS = [
    "demo.background.ProfileCsv",
    "demo.background.SumNumbers",
    "demo.background.WaitTask",
]

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

TASK_API_REDIS_URL = REDIS_URL  # the queue of the tasks

CHANNEL_LAYERS = {  # carries progress and messages from the worker to the server
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    },
}

MEDIA_ROOT = DATA_DIR / "files"  # of tasks: what is uploaded for them, and what they return

ASGI_APPLICATION = "demo.asgi.application"

# --- Django ----------------------------------------------------------------------------------------------------------

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-the-demo")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *os.environ.get("ALLOWED_HOSTS", "").split()]
ROOT_URLCONF = "demo.urls"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        # The server and the worker both write. With WAL, readers do not wait for writers. With IMMEDIATE, a writer
        # takes its lock when its transaction begins, and waits if another writer has it.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
}

STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
