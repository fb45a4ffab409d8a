"""How REST reads and writes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer

from taskapi.protocol import encode
from taskapi.views.problems import PROBLEM

JSON = "application/json"


class Parser(JSONParser):
    """DRF's, but JSON that is nested too deeply gets 400: DRF answers it with 500."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None


class Renderer(BaseRenderer):
    """The same JSON as on the WebSocket: it can write every string that a task may send."""

    media_type = JSON
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else encode(data).encode()


class ProblemRenderer(Renderer):
    """For a client that takes problem details and nothing else: what is no refusal is JSON all the same."""

    media_type = PROBLEM
    format = "problem"
