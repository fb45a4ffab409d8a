"""What all REST views share: JSON in, JSON out, and how a run is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils.http import parse_etags
from rest_framework import status
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.backends.attendance import hint_for
from taskapi.models import TaskInfo
from taskapi.protocol import represent
from taskapi.runs.access import TaskAPIView
from taskapi.views.json import JSON, Parser, ProblemRenderer, Renderer
from taskapi.views.problems import PROBLEM, problem, rate_limit_fields
from taskapi.views.waiting import Wait, answer_later

RETRY_AFTER = "1"  # seconds
ANYTHING = (None, "*/*", JSON)  # what most clients accept


class View(TaskAPIView):
    """JSON in, JSON out, and nothing from a cache."""

    parser_classes = (Parser,)
    renderer_classes = (Renderer, ProblemRenderer)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        meta = request.META
        if meta.get("HTTP_ACCEPT") in ANYTHING and not meta["QUERY_STRING"]:
            return Renderer(), JSON  # as DRF would find in a tenth of the time of a poll
        return super().perform_content_negotiation(request, force)

    def represented(
        self, info: TaskInfo, after: int = 0, *, code: int = status.HTTP_200_OK, location: str | None = None
    ) -> Response:
        """The representation, with the messages past the first `after`; `location`: the path of a new run."""
        info.hint = hint_for(info)
        response = Response(represent(info, info.messages_after(after)), code)
        if location is not None:
            response["Location"] = location
        return self.stamped(response, info)

    def stamped(self, response: Response, info: TaskInfo) -> Response:
        """The response, with the headers of every answer about one run."""
        response["ETag"] = entity_tag(info)
        if not info.is_final:
            response["Retry-After"] = RETRY_AFTER
        return response

    def answer_later(self, wait: Wait, seconds: int, answer: Callable[[], Response]) -> Response:
        """What `answer` makes once `wait` has returned; it says that the client's wish to wait was kept."""

        def make() -> Response:
            try:
                response = self.waited(answer(), seconds)
            except Exception as exc:  # noqa: BLE001 - as DRF's `dispatch`, which has returned long ago
                response = self.handle_exception(exc)
            finished: Response = self.finalize_response(self.request, response)
            finished.render()
            return finished

        return answer_later(self.request._request, wait, make)  # noqa: SLF001 - DRF has no public name for it

    def waited(self, response: Response, seconds: int | None) -> Response:
        """The response, which says that the client's wish to wait was kept if it had one."""
        if seconds is not None:
            response["Preference-Applied"] = f"wait={seconds}"
        return response

    def handle_exception(self, exc: Exception) -> Response:
        response: Response = super().handle_exception(exc)
        if isinstance(exc, Throttled):
            for name, value in {"Retry-After": RETRY_AFTER, **rate_limit_fields(self.refused_by)}.items():
                response.headers.setdefault(name, value)
        if self.request.get_preferred_type([JSON, PROBLEM]) == PROBLEM:
            response.data = problem(response.data, response.status_code)
            response.content_type = PROBLEM
        return response

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(response, Response) and response.content_type is None:
            response.content_type = JSON  # whatever refusals would be
        response.headers.setdefault("Cache-Control", "no-store")
        return super().finalize_response(request, response, *args, **kwargs)


def entity_tag(info: TaskInfo) -> str:
    """The entity tag of a run: another one if anything of its representation has changed. Its hint is known."""
    return f'"{info.seq}{"c" * info.cancel_requested}{"h" * (info.hint is not None)}"'


def is_known(request: Request, tag: str) -> bool | None:
    """Whether the client has named this entity tag in `If-None-Match`; None if it has named none."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return None
    known = parse_etags(header)
    return known == ["*"] or tag in (one.removeprefix("W/") for one in known)  # a proxy that compresses weakens them


def public_path(request: Request) -> str:
    """The path as the client knows it: a proxy may have removed a prefix (FORCE_SCRIPT_NAME)."""
    return f"{request.META['SCRIPT_NAME'].rstrip('/')}{request.path_info}"


def messages_known(request: Request) -> int:
    """`?after=N`: how many messages the client has already."""
    value = request.query_params.get("after", "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise ValidationError({"after": ["Expected how many messages are known: an integer of 0 or more."]})
    return int(value)
