"""What all REST views share: JSON in, JSON out, and how a run is answered."""

from __future__ import annotations

from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.backends.attendance import hint_for
from taskapi.models import TaskInfo
from taskapi.protocol import represent
from taskapi.runs.access import TaskAPIView
from taskapi.views.json import Parser, Renderer

RETRY_AFTER = "1"  # seconds


class View(TaskAPIView):
    """JSON in, JSON out, and nothing from a cache."""

    parser_classes = (Parser,)
    renderer_classes = (Renderer,)

    def represented(
        self, info: TaskInfo, after: int = 0, *, code: int = status.HTTP_200_OK, location: str | None = None
    ) -> Response:
        """The representation, with the messages past the first `after`; `location`: the path of a new run."""
        info.hint = hint_for(info)
        response = Response(represent(info, info.messages_after(after)), code)
        response["Cache-Control"] = "no-store"
        if location is not None:
            response["Location"] = location
        if not info.is_final:
            response["Retry-After"] = RETRY_AFTER
        return response


def public_path(request: Request) -> str:
    """The path as the client knows it: a proxy may have removed a prefix (FORCE_SCRIPT_NAME)."""
    return f"{request.META['SCRIPT_NAME'].rstrip('/')}{request.path_info}"


def messages_known(request: Request) -> int:
    """`?after=N`: how many messages the client has already."""
    value = request.query_params.get("after", "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise ValidationError({"after": ["Expected how many messages are known: an integer of 0 or more."]})
    return int(value)
