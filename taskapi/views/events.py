"""``tasks/{uuid}/events/``: a run as server-sent events, with the payloads of the WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from taskapi import protocol
from taskapi.callers.backlog import TRANSPORT, is_behind, wait_for_reader
from taskapi.callers.caller import Caller
from taskapi.callers.rounds import get_round
from taskapi.callers.threads import let_thread_go
from taskapi.events.following import Following
from taskapi.exceptions import ProtocolError
from taskapi.models import TaskInfo
from taskapi.protocol.sse import HEARTBEAT, server_sent
from taskapi.runs.refusals import REFUSALS, Unavailable, as_protocol_error, sentence_of_fault
from taskapi.views.base import View, messages_known
from taskapi.views.html import HTMLEvents, shown_refusal
from taskapi.views.json import JSON, Renderer

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 15.0  # seconds of silence: many proxies end a connection that is silent for a minute
LAST = ("finished", "error")  # nothing follows these
# An EventSource connects again after the end, whatever the end was: in so many milliseconds. It has nothing to come
# back for, unless the server could not answer.
NEVER = "retry: 86400000\n\n"
SOON = f"retry: {Unavailable.wait * 1_000}\n\n"
LONG_FRAME = 8192  # characters, that is up to 5 ms of templates: a longer one is written beside the event loop
MOST_WAITING = 8  # frames that wait for the reader; then its subscription waits, which drops and reads the row instead
LONGEST_WAIT = 45.0  # seconds for a reader that does not read

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: pass on each event as it comes
    "Content-Encoding": "identity",  # Django's GZipMiddleware: leave it alone, each event would be a file of its own
}


class Format(Protocol):
    """How one stream writes what its run says."""

    ended: bool  # nothing more can be written: end the stream

    def write(self, frame: str, event_id: str) -> str:
        """The server-sent events for a frame of the WebSocket, as text; "" if it has none."""


class JSONEvents:
    """Each frame as it is, in an event that is called as its type."""

    ended = False

    def __init__(self, after: int = 0) -> None:
        """It needs not know which messages the client has."""

    def write(self, frame: str, event_id: str) -> str:
        return server_sent(frame, event=kind_of(frame), id=event_id)


FORMATS: dict[str, Callable[[int], Format]] = {"json": JSONEvents, "html": HTMLEvents}


class EventsView(View):
    """``tasks/{uuid}/events/``"""

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        return Renderer(), JSON  # of a refusal: there is nothing to choose

    def handle_exception(self, exc: Exception) -> Any:
        response = super().handle_exception(exc)
        return shown_refusal(response) if self.request.query_params.get("format") == "html" else response

    def get(self, request: Request, uuid: UUID) -> HttpResponseBase:
        """A snapshot, then events until the run has ended. ``Last-Event-ID`` resumes; ``?after=N`` as of a run."""
        form = FORMATS.get(request.query_params.get("format", "json"))
        if form is None:
            raise ValidationError({"format": [f"Expected one of: {', '.join(FORMATS)}."]})
        after = _last_event(request)
        self.find_run(uuid)
        http = request._request  # noqa: SLF001 - DRF has no public name for it
        if request.method == "HEAD":
            return HttpResponse(headers=HEADERS, content_type="text/event-stream")
        stream = Stream(uuid, Caller.of_stream(request), form(after), after, http)
        chunks = stream if isinstance(http, ASGIRequest) else _blocking(stream.chunks())
        return StreamingHttpResponse(chunks, headers=HEADERS, content_type="text/event-stream")


def _last_event(request: Request) -> int:
    """How many messages the client knows: the id of each event says it."""
    last = request.headers.get("Last-Event-ID", "")
    return int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else messages_known(request)


class Stream:
    """The events of one run for one caller, until the run has ended or the caller is somebody else."""

    def __init__(self, uuid: UUID, caller: Caller, form: Format, after: int, http: HttpRequest) -> None:
        self.caller = caller
        self._uuid = uuid
        self._form = form
        self._known = after  # messages that the client knows
        self._http = http
        self._transport: Any = getattr(http, "scope", {}).get(TRANSPORT)
        self._frames: asyncio.Queue[str] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._logged_out = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._following: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self.chunks()

    def close(self) -> None:
        """Follow nothing any more: Django calls this when the request has ended, in a thread.

        If the client has gone while its server waited for it to read, nothing else ends the stream: Django does not
        close what it reads from.
        """
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and all that was on it has ended
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        get_round().remove(self)
        if self._following is not None:
            self._following.cancel()

    async def chunks(self) -> AsyncIterator[str]:
        """The text of the stream."""
        await let_thread_go(self._http)
        self._loop = asyncio.get_running_loop()
        self._following = self._loop.create_task(self._follow())
        if self.caller.may_change:
            get_round().add(self)
        try:
            while True:
                frame = await self._next()
                if frame is None:
                    yield HEARTBEAT
                    continue
                is_last = kind_of(frame) in LAST
                yield (_come_back(frame) if is_last else "") + await self._written(frame)
                if is_last or self._form.ended:
                    return
                if self._transport is not None and is_behind(self._transport):
                    await self._wait_for_reader()
        finally:
            self._stop()
            await asyncio.gather(self._following, return_exceptions=True)

    async def log_out(self) -> None:
        """End the stream of a caller that is somebody else by now."""
        self._logged_out = True
        self._refuse(ProtocolError("not_authenticated", "You are not logged in any more, or as somebody else."))

    async def _follow(self) -> None:
        """Put the frames of the run into the queue, until this is cancelled."""
        try:
            async with Following(self._take) as following:
                await following.follow(self._uuid, protocol.reply("snapshot", None), self._find, self._known)
                await asyncio.Event().wait()
        except REFUSALS as error:
            self._refuse(as_protocol_error(error, None))
        except Exception as error:
            logger.exception("The stream of run %s has failed; its client is told to try again.", self._uuid)
            self._refuse(ProtocolError("unavailable", sentence_of_fault(error)))

    def _find(self, uuid: UUID) -> TaskInfo:
        return self.caller.view("GET", uuid=uuid).find_run(uuid)

    async def _take(self, frame: str) -> None:
        await self._room.acquire()
        self._frames.put_nowait(frame)

    def _refuse(self, why: ProtocolError) -> None:
        self._frames.put_nowait(protocol.encode(protocol.refusal(why, uuid=str(self._uuid))))

    async def _next(self) -> str | None:
        """The next frame; None if the stream was silent for so long that a heartbeat is due."""
        try:
            async with asyncio.timeout(HEARTBEAT_INTERVAL):
                frame = await self._frames.get()
        except TimeoutError:
            return None
        self._room.release()
        while self._logged_out and kind_of(frame) != "error":  # what was said before is not for this caller any more
            frame = self._frames.get_nowait()
        return frame

    async def _written(self, frame: str) -> str:
        event_id = self._event_id(frame)
        if len(frame) <= LONG_FRAME:
            return self._form.write(frame, event_id)
        return await asyncio.to_thread(self._form.write, frame, event_id)

    def _event_id(self, frame: str) -> str:
        """How many messages the client knows once it has this frame."""
        kind = kind_of(frame)
        if kind == "snapshot":
            task = json.loads(frame)["task"]
            self._known = min(self._known, task["message_count"]) + len(task["messages"])
        elif kind == "message":
            self._known += 1
        return str(self._known)

    async def _wait_for_reader(self) -> None:
        """Wait until the client has read what it was sent. If it reads nothing for long, its connection is ended."""
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await wait_for_reader(self._transport)
        except TimeoutError:
            logger.warning(
                "The client of a stream of run %s read nothing for %g s. Its connection is closed; it may come back.",
                self._uuid,
                LONGEST_WAIT,
            )
            self._transport.abortConnection()


def kind_of(frame: str) -> str:
    """The type of a frame; each begins with it."""
    return frame[len(_HEAD) : frame.index('"', len(_HEAD))]


_HEAD = '{"type":"'


def _come_back(last: str) -> str:
    """What an EventSource is told before the last frame of its stream: when to connect again."""
    return SOON if json.loads(last).get("code") == "unavailable" else NEVER


def _blocking(chunks: AsyncIterator[str]) -> Iterator[str]:
    """The chunks, for a WSGI server, which has no event loop: it gives the stream a thread."""
    with asyncio.Runner() as runner:
        try:
            while (chunk := runner.run(_next_of(chunks))) is not None:
                yield chunk
        finally:
            runner.run(_close(chunks))


async def _next_of(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)


async def _close(chunks: Any) -> None:
    await chunks.aclose()
