"""The short road of a poll: all that Django does for a request, in one call of a thread.

A client without a WebSocket asks for its run every second, and mostly nothing has changed. Django's handler for ASGI
hops to a thread for each signal and for each middleware, and starts and ends that thread for each request: that costs
several times what the answer costs. Here Django's sync handler serves the whole request, with all of the project's
middleware, in one of a few threads that stay and keep their connections to the database.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, cast

from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix
from rest_framework import status

from taskapi.callers.backlog import TRANSPORT, transport_of
from taskapi.store.database import close_dead_connections, keep_connections, open_connections

THREADS = 4  # each keeps a connection to the database
MOST = 16  # polls at once: if the project's middleware is slow, the others take Django's road, and a thread each
_RUN = re.compile(r"/tasks/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/$")


class Handler(ASGIHandler):
    """Django's handler for ASGI, with a short road for polls."""

    def __init__(self) -> None:
        super().__init__()
        self._sync_handler = BaseHandler()
        self._sync_handler.load_middleware()
        self._threads = ThreadPoolExecutor(THREADS, "taskapi-poll")
        self._polls = 0  # that are being answered

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not _is_poll(scope) or self._polls >= MOST:
            await super().__call__({**scope, TRANSPORT: transport_of(send)}, receive, send)
            return
        self._polls += 1
        try:
            response = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, scope)
        finally:
            self._polls -= 1
        await self.send_response(response, send)

    def _answer(self, scope: Any) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=self.__class__, scope=scope)
        opened = open_connections()
        response = self._respond(scope)
        if response.status_code == status.HTTP_503_SERVICE_UNAVAILABLE and close_dead_connections(opened):
            response = self._respond(scope)
        keep_connections()
        response.close()
        return response

    def _respond(self, scope: Any) -> HttpResponseBase:
        request, refusal = self.create_request(scope, BytesIO())
        if request is None:
            return cast("HttpResponseBase", refusal)
        response: Any = self._sync_handler.get_response(request)
        response._handler_class = self.__class__  # noqa: SLF001 - as Django's own handlers do
        return cast("HttpResponseBase", response)


def _is_poll(scope: Any) -> bool:
    """Whether this asks for a run as it is now."""
    if scope["method"] != "GET" or _RUN.search(scope["path"]) is None:
        return False
    return all(name != b"prefer" for name, _ in scope["headers"])
