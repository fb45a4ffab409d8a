"""``arq taskapi.worker.WorkerSettings``: our worker under arq's own command line.

arq's command makes a worker of its own from these settings, and awaits its `on_startup` before it looks at any queue.
Our worker runs inside `on_startup`; when it ends, arq's worker ends. `manage.py taskworker` runs the same worker
without that detour, and has more options. ``arq --check`` is answered while the command imports this module.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import django
from django.apps import apps

if not apps.ready:
    django.setup()

from taskapi.backends.arq import command
from taskapi.backends.arq.layout import health_key, queue_key, serialize
from taskapi.tasks import Task
from taskapi.workers.processes import end_in_a_moment, leave, log_to_terminal
from taskapi.workers.worker import Worker

if command.is_check():
    sys.exit(command.check())


async def work(ctx: dict[Any, Any]) -> None:
    """Run our worker in the place of arq's."""
    log_to_terminal()
    worker = Worker([Task.queue], burst=command.is_burst())
    ended = await worker.main()
    if worker.failed:
        leave(1)
    if not ended:
        leave()
    end_in_a_moment()
    raise asyncio.CancelledError  # this is how an arq worker is told to end


class WorkerSettings:
    """What arq reads."""

    functions = (command.run_task,)
    queue_name = queue_key(Task.queue)
    health_check_key = health_key(Task.queue)
    redis_settings = command.redis_settings()
    job_serializer = serialize
    on_startup = work
