"""What arq's own command line reads: its settings, its options and its ``--check``.

arq's check looks at one queue, and waits for Redis for ever with the settings that a worker needs. So ``--check`` is
answered here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import arq.cli
import click
from arq.connections import RedisSettings
from redis.asyncio.connection import parse_url

from taskapi.backends.arq.layout import FUNCTION, health_key
from taskapi.backends.redis import OUTAGE, parse_sentinel, sync_client
from taskapi.conf import settings
from taskapi.tasks import Task
from taskapi.tasks.registry import tasks


async def run_task(ctx: dict[Any, Any], uuid: str) -> None:
    """The function that our jobs name: arq needs one. Our own worker executes the runs."""
    raise RuntimeError("Jobs of taskapi are executed by its own worker, not by arq's.")


run_task.__qualname__ = FUNCTION


def redis_settings() -> RedisSettings:
    """TASK_API_REDIS_URL as arq needs it; redis-py reads the address, as it does for our own clients."""
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


def is_burst() -> bool:
    """Whether arq's command runs with ``--burst``."""
    context = click.get_current_context(silent=True)
    return bool(context and context.params.get("burst"))


def is_check() -> bool:
    """Whether arq's command runs with ``--check``."""
    context = click.get_current_context(silent=True)
    return context is not None and context.command is arq.cli.cli and bool(context.params.get("check"))


def check() -> int:
    """Print for each queue whether its workers are well; the exit code of ``arq --check``: 0 if one is well.

    The queues are those of the project's tasks and the default one. A worker is well if it has recorded so lately.
    """
    queues = sorted({Task.queue} | {task.queue for task in tasks().values()})
    client: Any = sync_client(settings.redis_url)
    try:
        records = [client.get(health_key(queue)) for queue in queues]
    except OUTAGE as error:
        click.echo(f"Health check failed: Redis is not there ({error!r}).")
        return 1
    for queue, record in zip(queues, records, strict=True):
        state = "no worker has said that it is well" if record is None else record.decode()
        click.echo(f"Queue {queue}: {state}")
    if not any(records):
        click.echo("Health check failed: no worker of any of these queues has said in the last minute that it is well.")
        return 1
    return 0
