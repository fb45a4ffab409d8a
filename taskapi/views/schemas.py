"""``tasks/openapi.json`` and ``tasks/asyncapi.json``: what the API says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework import exceptions, status
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.runs.access import TaskAPIView
from taskapi.schemas.calls import ASYNCAPI_JSON, OPENAPI_JSON
from taskapi.schemas.documents import ExtraMissing, Kind, document
from taskapi.views.base import View, public_path
from taskapi.views.json import ProblemRenderer, Renderer


class NotInstalled(exceptions.APIException):
    """The server lacks an extra of this package."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_code = "not_installed"


class TextRenderer(Renderer):
    """JSON that is text already; a refusal is not."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return data.encode() if isinstance(data, str) else super().render(data, accepted_media_type, renderer_context)


class OpenAPIRenderer(TextRenderer):
    """The same under the name that the document has as a media type."""

    media_type = OPENAPI_JSON


class AsyncAPIRenderer(TextRenderer):
    """The same under the name that the document has as a media type."""

    media_type = ASYNCAPI_JSON


class ProblemTextRenderer(TextRenderer):
    """For a client that takes problem details and nothing else, as `ProblemRenderer`."""

    media_type = ProblemRenderer.media_type
    format = ProblemRenderer.format


class DocumentView(View):
    """A document of the calls and the tasks that are there for the caller."""

    kind: ClassVar[Kind]
    named_renderer: ClassVar[type[TextRenderer]]

    def get_renderers(self) -> list[BaseRenderer]:
        return [TextRenderer(), self.named_renderer(), ProblemTextRenderer()]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        return TaskAPIView.perform_content_negotiation(self, request, force)  # among these, and not the usual ones

    def get(self, request: Request) -> Response:
        """The document."""
        mount = public_path(request).removesuffix(f"tasks/{self.kind}.json")
        try:
            text = document(self.kind, self.permitted_tasks(), mount, self.server(request))
        except ExtraMissing as error:
            raise NotInstalled(str(error)) from None
        named = self.named_renderer.media_type
        return Response(text, content_type=named if _accepted(request) == named else None)

    def server(self, request: Request) -> str | None:
        """The URL of the server, if the document has to name it."""
        return None


class OpenAPIView(DocumentView):
    """``tasks/openapi.json``"""

    kind = "openapi"
    named_renderer = OpenAPIRenderer


class AsyncAPIView(DocumentView):
    """``tasks/asyncapi.json``"""

    kind = "asyncapi"
    named_renderer = AsyncAPIRenderer

    def server(self, request: Request) -> str:
        return f"{request.scheme}://{request.get_host()}"


def _accepted(request: Any) -> str:
    """The media type that the caller and the server have agreed on."""
    agreed: str = request.accepted_renderer.media_type
    return agreed
