"""``arq taskapi.worker.WorkerSettings``: our worker under arq's own command line.

arq's command makes a worker of its own from these settings, and awaits its `on_startup` before it looks at
any queue. There our worker runs, for as long as it lives; arq's ends with it. `manage.py taskworker` runs
the same worker without that detour, and has more options.

``arq --check`` is answered here, too, while the command imports this module. arq's own check looks at one queue, and
waits for Redis as long as the worker does, which these settings have it do for ever.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import arq.cli
import click
import django
from arq.connections import RedisSettings
from django.apps import apps
from redis.asyncio.connection import parse_url

if not apps.ready:
    django.setup()

from taskapi.backends.arq import FUNCTION, Unavailable, health_key, queue_key, serialize
from taskapi.backends.redis import parse_sentinel, sync_client
from taskapi.conf import settings
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks
from taskapi.workers.processes import end_in_a_moment, leave, log_to_terminal
from taskapi.workers.worker import Worker

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
    worker = Worker([QUEUE], burst=burst)
    ended = await worker.main()
    if worker.failed:
        leave(1)
    if not ended:
        leave()
    end_in_a_moment()
    raise asyncio.CancelledError  # how an arq worker is told to end


def redis_settings() -> RedisSettings:
    """TASK_API_REDIS_URL as arq wants it: read by redis-py, as for our own clients."""
    sentinel = parse_sentinel(settings.redis_url)
    if sentinel is None:
        options: dict[str, Any] = dict(parse_url(settings.redis_url))
        known = {field.name for field in fields(RedisSettings)}
        found = RedisSettings(**{name: value for name, value in options.items() if name in known})
        found.database = options.get("db", 0)
        found.unix_socket_path = options.get("path")
        found.ssl = urlsplit(settings.redis_url).scheme == "rediss"
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


def check() -> int:
    """Say of each queue whether a worker that takes it is well; the exit code of ``arq --check``: 0 where one is.

    The queues are those of the project's tasks, and arq's own. As for arq, a worker is well that has said so lately.
    """
    queues = sorted({QUEUE} | {task.queue for task in tasks().values()})
    client: Any = sync_client(settings.redis_url)
    try:
        records = [client.get(health_key(queue)) for queue in queues]
    except Unavailable as error:
        click.echo(f"Health check failed: Redis is not there ({error!r}).")
        return 1
    for queue, record in zip(queues, records, strict=True):
        state = "no worker has said that it is well" if record is None else record.decode()
        click.echo(f"Queue {queue}: {state}")
    if not any(records):
        click.echo("Health check failed: no worker of any of these queues has said in the last minute that it is well.")
        return 1
    return 0


def _is_asked_to_check() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.command is arq.cli.cli and bool(context.params.get("check"))


if _is_asked_to_check():
    sys.exit(check())


class WorkerSettings:
    """What arq reads."""

    functions = (run_task,)
    queue_name = queue_key(QUEUE)
    health_check_key = health_key(QUEUE)
    redis_settings = redis_settings()
    on_startup = work
    job_serializer = serialize
