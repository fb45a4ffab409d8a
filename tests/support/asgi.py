"""Requests to an ASGI application in this process: their answers may be streams, and their clients may go away."""

import asyncio
import gc
import json
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any, Self

LIMIT = 20.0  # seconds for each wait


class Exchange:
    """One request and its answer: `async with Exchange(application, "/tasks/…/") as exchange`."""

    def __init__(
        self,
        application: Any,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        **scope: Any,
    ) -> None:
        sent = {"Host": "testserver"} | (headers or {})
        self._application = application
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path.partition("?")[0],
            "query_string": path.partition("?")[2].encode(),
            "headers": [(name.lower().encode(), value.encode("latin1")) for name, value in sent.items()],
            "client": ["127.0.0.1", 50_000],
            "server": ["testserver", 80],
            **scope,
        }
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.status = 0
        self.headers: dict[str, str] = {}  # by their names in lower case
        self.cookies: list[str] = []  # the names of those that are set

    async def __aenter__(self) -> Self:
        application = self._application(self._scope, self._received.get, self._sent.put)
        self.task = asyncio.get_running_loop().create_task(application)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        async with asyncio.timeout(LIMIT):
            await self.task

    def leave(self) -> None:
        """Close the connection, as a client does that goes away, and as a server does after the answer."""
        self._received.put_nowait({"type": "http.disconnect"})

    async def cut(self) -> None:
        """End the application, as daphne does on SIGTERM."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=LIMIT)
        assert self.task.cancelled()
        for found in gc.get_objects():
            if type(found) is SpooledTemporaryFile:  # the request's body, which Django does not close then
                found.close()

    async def begin(self) -> int:
        """Wait for the head of the answer; its status."""
        if not self.status:
            message = await self._next()
            assert message["type"] == "http.response.start"
            self.status = message["status"]
            for name, value in message["headers"]:
                if name.lower() == b"set-cookie":
                    self.cookies.append(value.decode().partition("=")[0])
                    self.cookie = value.decode().partition(";")[0]
                else:
                    self.headers[name.decode().lower()] = value.decode("latin1")
        return self.status

    async def chunk(self) -> bytes | None:
        """The next part of the body; None after the last."""
        await self.begin()
        if self._sent.empty() and self.task.done():
            return None
        message = await self._next()
        body: bytes = message.get("body", b"")
        return body if message.get("more_body") or body else None

    async def body(self) -> bytes:
        """The whole body."""
        parts = [await self._last_of_body()]
        while parts[-1][1]:
            parts.append(await self._last_of_body())
        return b"".join(body for body, _ in parts)

    async def _last_of_body(self) -> tuple[bytes, bool]:
        await self.begin()
        message = await self._next()
        return message.get("body", b""), message.get("more_body", False)

    async def json(self) -> Any:
        return json.loads(await self.body())

    @property
    def is_answered(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self.status) or not self._sent.empty()

    async def _next(self) -> dict[str, Any]:
        """What the application sends next; if it fails before, this raises what it raised."""
        async with asyncio.timeout(LIMIT):
            getting = asyncio.ensure_future(self._sent.get())
            try:
                await asyncio.wait({getting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done() and self._sent.empty():
                    self.task.result()
                    raise AssertionError("The application has ended without an answer.")
                return await getting
            finally:
                getting.cancel()


async def get(application: Any, path: str, headers: dict[str, str] | None = None, **options: Any) -> Exchange:
    """The answer to a GET: its `status` and `headers`, and its text in `text`."""
    async with Exchange(application, path, headers=headers, **options) as exchange:
        exchange.text = (await exchange.body()).decode()
    return exchange
