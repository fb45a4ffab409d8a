"""The thread of a request under ASGI, which its views and its middleware share.

asgiref gives each request a thread of its own, and ends it with the request. A request that waits for minutes needs no
thread meanwhile, nor the connections to databases that Django keeps in it. So they are let go before it waits. What
comes later gets a new thread.
"""

from __future__ import annotations

import asyncio

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.http import HttpRequest

SERVING = "taskapi.serving"  # in the scope of a request: the tasks that serve it for long, which its server may end


async def let_thread_go(http: HttpRequest) -> None:
    """End the thread of the running request, with its connections to databases.

    From now on the running task ends with the server (`taskapi.views.polls.Handler`). Django's handler does not cancel
    what it has begun: under sync middleware a thread would wait for this task for ever, and the process for the thread.
    """
    tasks: set[asyncio.Task[None] | None] | None = getattr(http, "scope", {}).get(SERVING)
    if tasks is not None:
        tasks.add(asyncio.current_task())
    await sync_to_async(close_connections)()
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or getattr(context, "_executor", None) is not None:  # that one is somebody else's
        return
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:
        executor.shutdown(wait=False)


def close_connections() -> None:
    """Close this thread's connections to databases, if they are not in a transaction, as those of a test are."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
