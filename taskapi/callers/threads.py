"""The thread of a request under ASGI, which its views and its middleware share.

asgiref gives each request a thread of its own, and ends it with the request. A request that waits for minutes needs no
thread meanwhile, nor the connections to databases that Django keeps in it. So they are let go before it waits. What
comes later gets a new thread.
"""

from __future__ import annotations

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections


async def let_thread_go() -> None:
    """End the thread of the running request, with its connections to databases."""
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
