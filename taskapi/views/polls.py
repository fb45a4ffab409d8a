"""The short road of a poll: all that Django does for a request, in one call of a thread.

A client without a WebSocket asks for its run every second, and mostly nothing has changed. Django's handler for ASGI
hops to a thread for each signal and for each middleware, and starts and ends that thread for each request: that costs
several times what the answer costs. Here Django's sync handler serves the whole request, with all of the project's
middleware, in one of a few threads that stay and keep their connections to the database.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from io import BytesIO
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.db import connections, router
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve, set_script_prefix
from django.utils.module_loading import import_string
from rest_framework import status

from taskapi.callers.backlog import TRANSPORT, transport_of
from taskapi.callers.bodies import Body
from taskapi.callers.threads import SERVING
from taskapi.models import TaskInfo
from taskapi.store.database import borrowed_connections, close_dead_connections, open_connections
from taskapi.store.silence import watching
from taskapi.views.run import RunView

THREADS = 4  # each keeps a connection to the database, and is of use while another one waits for its answer
THREADS_FOR_SQLITE = 1  # it answers without a network: a second thread only takes the interpreter from the first
# A burst of polls waits for these threads: with a thread each, they would take more connections than PostgreSQL has.
# But if the project's middleware is slow, they take Django's road, and a thread each.
PATIENCE = 1.0  # seconds for which a poll waits for a thread
REST = 5.0  # seconds after that, in which no poll waits for one
_RUN = re.compile(r"/tasks/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/$")
_SOME_RUN = f"/tasks/{UUID(int=0)}/"
_ELSEWHERE = {b"prefer", b"content-length", b"transfer-encoding"}  # it may want to wait, or have a body
_NO_BODY = (b"content-length", b"0")


class Handler(ASGIHandler):
    """Django's handler for ASGI, with a short road for polls."""

    def __init__(self) -> None:
        super().__init__()
        self._sync_handler = BaseHandler()
        self._is_open = _all_middleware_is_sync()
        if self._is_open:
            self._sync_handler.load_middleware()
        self._threads = ThreadPoolExecutor(_how_many_threads(), "taskapi-poll")
        self._waiting: dict[Future[HttpResponseBase], float] = {}  # since when, by the loop's clock
        self._look: asyncio.TimerHandle  # one for all who wait: a timer each would cost a tenth of the answer
        self._closed_until = 0.0  # by the loop's clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response = None
        if self._is_open and _is_poll(scope) and asyncio.get_running_loop().time() >= self._closed_until:
            response = await self._answer_soon(scope)
        if response is None:
            await super().__call__({**scope, TRANSPORT: transport_of(send)}, receive, send)
            return
        try:
            await self.send_response(response, send)
        finally:
            if response.streaming:
                await asyncio.get_running_loop().run_in_executor(self._threads, response.close)

    async def read_body(self, receive: Any) -> Any:
        """As Django's. A body that is in a file already is not copied."""
        if not isinstance(receive, Body):
            return await super().read_body(receive)
        await receive.taken()
        return receive.file

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        serving: set[asyncio.Task[None]] = set()
        try:
            await super().handle({**scope, SERVING: serving}, receive, send)
        except asyncio.CancelledError:  # the server ends
            # Since Django 6.1 a response is made in the task of its request, which cannot wait for itself.
            others = serving - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            raise

    async def _answer_soon(self, scope: Any) -> HttpResponseBase | None:
        """The answer; None if no thread is free for so long that the road is closed for a while."""
        loop = asyncio.get_running_loop()
        # A context of its own, as each request has: what it activates (a language) is not there for the next.
        answering = self._threads.submit(copy_context().run, self._answer, scope)
        if not self._waiting:
            self._look = loop.call_later(PATIENCE, self._close_if_busy, loop)
        self._waiting[answering] = loop.time()
        try:
            return await asyncio.wrap_future(answering)
        except asyncio.CancelledError:
            if cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                raise  # the client is gone
            return None
        finally:
            del self._waiting[answering]
            if not self._waiting:
                self._look.cancel()

    def _close_if_busy(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send the polls that have waited for a thread for too long to Django's road, and the next ones as well."""
        begun_before = loop.time() - PATIENCE
        cancelled = [answering.cancel() for answering, since in self._waiting.items() if since <= begun_before]
        if any(cancelled):  # the others are being answered
            self._closed_until = loop.time() + REST
        self._look = loop.call_later(PATIENCE, self._close_if_busy, loop)

    def _answer(self, scope: Any) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=self.__class__, scope=scope)
        opened = open_connections()
        with watching(), borrowed_connections():
            response = self._respond(scope)
            if response.status_code >= status.HTTP_500_INTERNAL_SERVER_ERROR and close_dead_connections(opened):
                response = self._respond(scope)
        if not response.streaming:  # as middleware may have made it
            response.close()
        return response

    def _respond(self, scope: Any) -> HttpResponseBase:
        request, refusal = self.create_request(scope, BytesIO())
        if request is None:
            return cast("HttpResponseBase", refusal)
        response: Any = self._sync_handler.get_response(request)
        response._handler_class = self.__class__  # noqa: SLF001 - as Django's own handlers do
        return cast("HttpResponseBase", response)


def _how_many_threads() -> int:
    is_sqlite = connections[router.db_for_write(TaskInfo)].vendor == "sqlite"
    return THREADS_FOR_SQLITE if is_sqlite else THREADS


def _all_middleware_is_sync() -> bool:
    """Whether there is no middleware that has to run on the server's event loop."""
    return all(getattr(import_string(path), "sync_capable", True) for path in settings.MIDDLEWARE)


def _is_poll(scope: Any) -> bool:
    """Whether this asks for a run as it is now."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    found = _RUN.search(scope["path"])
    if found is None or any(field[0] in _ELSEWHERE and tuple(field) != _NO_BODY for field in scope["headers"]):
        return False
    return _has_runs(scope["path"][: found.start()], get_script_prefix(scope), settings.ROOT_URLCONF)


@lru_cache(64)
def _has_runs(prefix: str, script_name: str, urlconf: str) -> bool:
    """Whether runs are there, below this prefix. The project may have pages of its own at such a path."""
    try:
        match = resolve(f"{prefix}{_SOME_RUN}".removeprefix(script_name), urlconf)
    except Resolver404:
        return False
    return getattr(match.func, "view_class", None) is RunView
