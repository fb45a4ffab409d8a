"""What waits in the server for a client to read it.

daphne takes whatever it is given and keeps it until the client has read it, or is gone. ASGI has no word for that, so
this looks where Twisted has it; other servers (uvicorn, hypercorn) let `send` wait by themselves.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST_UNSENT = 2**20  # bytes; beyond, nothing more is given to the server until the client has read some
PAUSE = 0.05  # seconds between two looks


def transport_of(send: Any) -> Any:
    """The connection behind the `send` of an ASGI application; None where the server is not daphne, or hides it."""
    arguments = getattr(send, "args", ())  # a partial of its method, with the protocol
    transport = getattr(arguments[0], "transport", None) if arguments else None
    return transport if hasattr(transport, "dataBuffer") and hasattr(transport, "_tempDataLen") else None


async def wait_for_reader(transport: Any) -> None:
    """Return once the client has read enough, or is gone."""
    while transport.connected and _unsent(transport) > MOST_UNSENT:  # noqa: ASYNC110 - Twisted tells its one producer alone, which is daphne
        await asyncio.sleep(PAUSE)


def _unsent(transport: Any) -> int:
    unsent: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # noqa: SLF001 - it has no public name
    return unsent
