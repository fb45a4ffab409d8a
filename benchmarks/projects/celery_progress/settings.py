from benchmarks.projects.common import *  # noqa: F403
from benchmarks.projects.common import INSTALLED_APPS, REDIS_URL

INSTALLED_APPS = [*INSTALLED_APPS, "channels", "celery_progress"]
ROOT_URLCONF = "benchmarks.projects.celery_progress.urls"

CELERY_BROKER_URL = CELERY_RESULT_BACKEND = REDIS_URL
# Not the pubsub layer: celery-progress calls `close_pools`, which only this one has.
CHANNEL_LAYERS = {
    "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}},
}
