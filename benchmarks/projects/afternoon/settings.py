import os

from benchmarks.projects.common import *  # noqa: F403
from benchmarks.projects.common import INSTALLED_APPS, REDIS_URL

INSTALLED_APPS = [*INSTALLED_APPS, "channels", "benchmarks.projects.afternoon"]

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": os.environ.get("BENCH_LAYER", "channels_redis.core.RedisChannelLayer"),
        "CONFIG": {"hosts": [REDIS_URL]},
    },
}
