"""``tasks/{uuid}/files/{reference}/``: a file that a run has returned."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from django.core.files import File
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from taskapi.callers.backlog import TRANSPORT, is_behind, wait_for_reader
from taskapi.callers.threads import let_thread_go
from taskapi.files import open_stored
from taskapi.models import StoredFile
from taskapi.params.labels import ANY_TYPE
from taskapi.storage import signed_link
from taskapi.views.base import View
from taskapi.views.json import JSON, Renderer

logger = logging.getLogger(__name__)

CHUNK = 2**18  # bytes that are read at once
LONGEST_WAIT = 60.0  # seconds for a reader that does not read
# No `Range`: not each storage can seek, and docs/discussions.md says more.
#: Content types that a browser might execute on the project's own pages.
ACTIVE = re.compile(r"html|[/+]xml|xsl|svg|(java|ecma|live|j)script|multipart/|x-shockwave|pdf")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
    "X-Accel-Buffering": "no",  # nginx: pass on each chunk as it comes
}


class FileView(View):
    """``tasks/{uuid}/files/{reference}/``"""

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        return Renderer(), JSON  # of a refusal: a file is what it is

    def get(self, request: Request, uuid: UUID, reference: str) -> HttpResponseBase:
        """The file, to be saved and not to be shown; for those who may see the run."""
        row = self.find_run(uuid).files.filter(reference=reference).first()
        if row is None:
            raise NotFound
        disposition = content_disposition_header(True, row.name) or "attachment"
        kind = ANY_TYPE if ACTIVE.search(row.content_type) else row.content_type
        link = signed_link(row.location, disposition, kind)
        if link is not None:
            return HttpResponseRedirect(link, headers={"Cache-Control": "private, no-store"})
        headers = {**HEADERS, "Content-Disposition": disposition, "Content-Length": str(row.size)}
        http = request._request  # noqa: SLF001 - DRF has no public name for it
        if request.method == "HEAD":
            return StreamingHttpResponse((), headers=headers, content_type=kind)
        file = _open(row)
        chunks = _sent(file, http) if isinstance(http, ASGIRequest) else _read(file)
        response = StreamingHttpResponse(chunks, headers=headers, content_type=kind)
        response._resource_closers.append(file.close)  # type: ignore[attr-defined]  # noqa: SLF001 - as Django's FileResponse: nobody may read it
        return response


def _open(row: StoredFile) -> File[Any]:
    try:
        return open_stored(row)
    except FileNotFoundError:  # its run is being deleted; or somebody has tidied the storage
        raise NotFound from None


def _read(file: File[Any]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


async def _sent(file: File[Any], http: ASGIRequest) -> AsyncIterator[bytes]:
    """The chunks, each read beside the event loop once the client has read most of those before it."""
    transport = http.scope.get(TRANSPORT)
    await let_thread_go(http)
    while chunk := await asyncio.to_thread(file.read, CHUNK):
        yield chunk
        if transport is not None and is_behind(transport):
            await _wait_for_reader(transport)


async def _wait_for_reader(transport: Any) -> None:
    """Wait until the client has read what it was sent. If it reads nothing for long, its connection is ended."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await wait_for_reader(transport)
    except TimeoutError:
        logger.warning("The client of a file read nothing for %g s. Its connection is closed.", LONGEST_WAIT)
        transport.abortConnection()
