"""``arq taskapi.worker.WorkerSettings``: our worker under arq's own command line.

arq's command makes a worker of its own from these settings, and awaits its `on_startup` before it looks at
any queue. There our worker runs, for as long as it lives; arq's ends with it. `manage.py taskworker` runs
the same worker without that detour, and has more options.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import click
import django
from arq.connections import RedisSettings
from django.apps import apps

if not apps.ready:
    django.setup()

from taskapi.backends.arq import FUNCTION, health_key, queue_key, serialize
from taskapi.conf import settings
from taskapi.processes import end_in_a_moment, leave, log_to_terminal
from taskapi.redis import parse_sentinel
from taskapi.tasks import Task
from taskapi.workers.engine import Worker

QUEUE = Task.queue


async def run_task(ctx: dict[Any, Any], uuid: str) -> None:
    """What a job of ours calls. arq wants it by name; our worker executes the run itself."""
    raise RuntimeError("Jobs of taskapi are executed by its own worker, not by arq's.")


run_task.__qualname__ = FUNCTION


async def work(ctx: dict[Any, Any]) -> None:
    """Run our worker in the place of arq's."""
    context = click.get_current_context(silent=True)
    burst = bool(context and context.params.get("burst"))
    log_to_terminal()
    if not await Worker([QUEUE], burst=burst).main():
        leave()
    end_in_a_moment()
    raise asyncio.CancelledError  # how an arq worker is told to end


def redis_settings() -> RedisSettings:
    """TASK_API_REDIS_URL as arq wants it."""
    sentinel = parse_sentinel(settings.redis_url)
    if sentinel is None:
        parts = urlsplit(settings.redis_url)
        found = RedisSettings.from_dsn(parts._replace(path=parts.path.rstrip("/")).geturl())  # redis://host/ is fine
    else:
        found = RedisSettings(
            host=list(sentinel.hosts),
            sentinel=True,
            sentinel_master=sentinel.service,
            database=sentinel.database,
            username=sentinel.username,
            password=sentinel.password,
        )
    found.conn_retries = 10**9  # a worker waits for Redis, however long
    return found


class WorkerSettings:
    """What arq reads."""

    functions = (run_task,)
    queue_name = queue_key(QUEUE)
    health_check_key = health_key(QUEUE)
    redis_settings = redis_settings()
    on_startup = work
    job_serializer = serialize
