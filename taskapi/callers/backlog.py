"""How much waits in the server until the client reads it.

daphne takes all that it is given, and keeps it until the client has read it or is gone. ASGI does not say how much that
is, so this looks into Twisted. In other servers (uvicorn, hypercorn) `send` itself waits.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST_UNSENT = 2**20  # bytes; if more waits, the server gets nothing until the client has read some
PAUSE = 0.05  # seconds between two looks
TRANSPORT = "taskapi.transport"  # in the scope of a request: its connection, for a view, which never sees `send`


def transport_of(send: Any) -> Any:
    """The connection behind the `send` of an ASGI application; None if the server is not daphne, or hides it."""
    arguments = getattr(send, "args", ())  # a partial of its method, with the protocol
    transport = getattr(arguments[0], "transport", None) if arguments else None
    return transport if hasattr(transport, "dataBuffer") and hasattr(transport, "_tempDataLen") else None


def is_behind(transport: Any) -> bool:
    """Whether the client should read before more is sent; False if it is gone."""
    unsent: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # noqa: SLF001 - it has no public name
    return unsent > MOST_UNSENT and bool(transport.connected)


async def wait_for_reader(transport: Any) -> None:
    """Return once the client has read enough, or is gone."""
    while is_behind(transport):  # noqa: ASYNC110 - Twisted tells only one producer, and that is daphne
        await asyncio.sleep(PAUSE)
