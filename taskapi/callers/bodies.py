"""The body of a request under daphne, which would put all of it into memory, twice.

daphne keeps a large body in a temporary file until it is whole. If it is a form, Twisted then reads all of it to find
the fields, which daphne does not use: that takes twelve times the size of the body, and the event loop stands still for
as long. Twisted has a switch for that. Then daphne calls the application, reads the file to its end, and only then lets
the application run. What it calls gets the chance to take the file away before it is read.

In other servers (uvicorn, hypercorn) a body comes in parts, as the application asks for them.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO
from typing import IO, Any

SWITCH = "parsePOSTFormSubmission"  # of a request of Twisted
CHUNK = 2**18  # bytes that are read at once

Receive = Callable[[], Awaitable[Any]]


def leave_forms_to_django() -> None:
    """If daphne serves: keep Twisted from reading forms, with all the files in them."""
    daphne: Any = sys.modules.get("daphne.http_protocol")
    request: Any = getattr(daphne, "WebRequest", None)
    if isinstance(request, type) and SWITCH in inspect.signature(request.mro()[1]).parameters:
        daphne.WebRequest = partial(request, **{SWITCH: False})


def in_its_file(receive: Receive, send: Any) -> Receive:
    """The `receive` of a request, of which a large body stays in the file where daphne has it.

    It has to be called before daphne reads the file: by a plain function that daphne calls, and not by a coroutine. If
    the project has ASGI middleware, say, it comes too late: then the body is in memory, and is left there.
    """
    arguments = getattr(send, "args", ())  # a partial of a method of its server, with the protocol
    request = arguments[0] if arguments else None
    content = getattr(request, "content", None)
    if content is None or isinstance(content, BytesIO) or not hasattr(content, "read"):
        return receive
    if content.tell() != 0:  # daphne has read it: all of it is on its way already
        return receive
    request.content = BytesIO()  # type: ignore[union-attr]  # it has `content`: it is daphne's
    return Body(content, receive)


class Body:
    """The `receive` of a request whose body is in a file."""

    def __init__(self, file: IO[bytes], receive: Receive) -> None:
        self.file = file
        self._receive = receive
        self._is_over = False

    async def __call__(self) -> Any:
        if self._is_over:
            return await self._receive()
        chunk = await asyncio.to_thread(self.file.read, CHUNK)
        if not chunk:
            await self.taken()
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def taken(self) -> None:
        """Nothing more is read here: what follows is what the server says."""
        self._is_over = True
        await self._receive()  # the empty body that it was left with
