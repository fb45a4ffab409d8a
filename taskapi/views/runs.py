"""The REST calls: start a run, look at it, cancel it, retry it."""

from __future__ import annotations

from uuid import UUID

from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.backends.attendance import hint_for
from taskapi.models import TaskInfo
from taskapi.protocol import KEY_LENGTH, represent
from taskapi.runs.access import TaskAPIView
from taskapi.views.serializers import Parser, Renderer, RunRequest

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


class RunsView(View):
    """``tasks/``"""

    def post(self, request: Request) -> Response:
        """Start a run."""
        body = RunRequest(data=request.data)
        body.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= KEY_LENGTH:
            raise ValidationError({"Idempotency-Key": [f"Expected 1 to {KEY_LENGTH} characters."]})
        given = body.validated_data
        info, created = self.start_run(given["task"], given["inputs"], idempotency_key=key)
        location = f"{_public_path(request)}{info.uuid}/"
        code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        return self.represented(info, code=code, location=location)


class RunView(View):
    """``tasks/{uuid}/``"""

    def get(self, request: Request, uuid: UUID) -> Response:
        """The representation; ``?after=N`` leaves out the first N messages."""
        return self.represented(self.find_run(uuid), _after(request))


class CancelView(View):
    """``tasks/{uuid}/cancel/``"""

    def post(self, request: Request, uuid: UUID) -> Response:
        """Ask the run to stop; 409 if it has ended."""
        return self.represented(self.cancel_run(uuid), code=status.HTTP_202_ACCEPTED)


class RetryView(View):
    """``tasks/{uuid}/retry/``"""

    def post(self, request: Request, uuid: UUID) -> Response:
        """Start a new run of the same inputs; 409 if this one has not ended."""
        info = self.retry_run(uuid)
        location = _public_path(request).replace(str(uuid), str(info.uuid)).removesuffix("retry/")
        return self.represented(info, code=status.HTTP_202_ACCEPTED, location=location)


def _public_path(request: Request) -> str:
    """The path as the client knows it: a proxy may have removed a prefix (FORCE_SCRIPT_NAME)."""
    return f"{request.META['SCRIPT_NAME'].rstrip('/')}{request.path_info}"


def _after(request: Request) -> int:
    value = request.query_params.get("after", "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise ValidationError({"after": ["Expected how many messages are known: an integer of 0 or more."]})
    return int(value)
