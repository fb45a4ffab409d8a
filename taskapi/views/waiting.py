"""``Prefer: wait=S`` (RFC 7240): an answer that is made when there is something to say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.callers.threads import close_connections, let_thread_go
from taskapi.events.waiting import wait_for_run
from taskapi.models import TaskInfo
from taskapi.protocol import LONGEST_WAIT
from taskapi.store.loops import one_per_loop

AT_ONCE = 8  # late answers, each with a thread and a connection: hundreds may have waited for one run
_WAIT = re.compile(r'\s*wait\s*=\s*(?P<quote>"?)(?P<seconds>\d{1,9})(?P=quote)\s*(;.*)?', re.IGNORECASE)

Wait = Callable[[], Coroutine[Any, Any, None]]


def preferred_wait(request: Request) -> int | None:
    """For how many seconds the client prefers to wait, LONGEST_WAIT at most; None if it does not clearly say so."""
    for preference in request.headers.get("Prefer", "").split(","):
        if found := _WAIT.fullmatch(preference):
            return min(int(found["seconds"]), LONGEST_WAIT)
    return None


def until_changed(info: TaskInfo, seconds: float) -> Wait:
    """Waits until the run is not as `info` shows it any more."""

    async def wait() -> None:
        await wait_for_run(info.uuid, lambda now: _state(now) != _state(info), seconds, until_final=False)

    return wait


def until_final(infos: Iterable[TaskInfo], seconds: float) -> Wait:
    """Waits until all of the runs have ended."""

    async def wait() -> None:
        waits = (wait_for_run(info.uuid, lambda now: now.is_final, seconds, until_final=True) for info in infos)
        await asyncio.gather(*waits)

    return wait


def _state(info: TaskInfo) -> tuple[int, bool]:
    return info.seq, info.cancel_requested


def answer_later(http: HttpRequest, wait: Wait, answer: Callable[[], Response]) -> Response:
    """The response that `answer` makes, once `wait` has returned."""
    return _Awaited(http, wait, answer) if isinstance(http, ASGIRequest) else _Waiting(http, wait, answer)


class _Later(Response):
    """Django renders a response after its view has returned, and takes what `render` returns in its place."""

    def __init__(self, http: HttpRequest, wait: Wait, answer: Callable[[], Response]) -> None:
        super().__init__()
        self._http = http
        self._wait = wait
        self._answer = answer

    def _make(self) -> Response:
        """The answer, with what middleware has added to this in its place (`process_template_response`)."""
        response = self._answer()
        for name, value in self.items():
            if name.lower() != "content-type":
                response.headers.setdefault(name, value)
        response.cookies.update(self.cookies)
        return response


class _Awaited(_Later):
    """Under ASGI, Django awaits `render` on the event loop: nothing holds a thread meanwhile."""

    async def render(self) -> Response:  # type: ignore[override]  # Django asks whether it is a coroutine function
        await let_thread_go(self._http)
        await self._wait()
        async with one_per_loop(_turns):
            return await sync_to_async(self._make_and_close)()

    def _make_and_close(self) -> Response:
        try:
            return self._make()
        finally:
            close_connections()


def _turns() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)


class _Waiting(_Later):
    """Under WSGI, the thread of the request waits."""

    def render(self) -> Response:
        close_connections()
        async_to_sync(self._wait)()
        return self._make()
