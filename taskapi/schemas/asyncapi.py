"""The WebSocket as AsyncAPI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from taskapi import __version__
from taskapi.protocol import SUBPROTOCOL
from taskapi.schemas.definitions import components
from taskapi.schemas.frames import ANSWERS, CLIENT, CLOSE_CODES, EVENTS, Message, name_of
from taskapi.schemas.parts import needed, ref
from taskapi.schemas.tasks import Described

ASYNCAPI = "3.0.0"
LOCAL = "http://127.0.0.1:8000"  # the server of `runserver`

_SENT: Mapping[str, Message] = {**ANSWERS, **EVENTS}
_CHANNEL = "#/channels/tasks"


def document(of_tasks: Iterable[Described], mount: str, server: str | None = None) -> dict[str, Any]:
    """AsyncAPI 3 of the WebSocket beside our REST calls, which are mounted at this path."""
    address = f"{mount}tasks/ws/"
    messages = {kind: _message(kind, message) for kind, message in {**CLIENT, **_SENT}.items()}
    whole: dict[str, Any] = _without_discriminators(
        {
            "asyncapi": ASYNCAPI,
            "info": {
                "title": "Tasks",
                "version": __version__,
                "description": "Background tasks: start a run, follow it, cancel it. By Django Task API.",
            },
            "defaultContentType": "application/json",
            "servers": {"server": _server(server or LOCAL)},
            "channels": {"tasks": _channel(address)},
            "operations": {**{kind: _call(kind, message) for kind, message in CLIENT.items()}, "follow": _events()},
            "components": {"messages": messages, **needed(messages, components(of_tasks))},
        }
    )
    return whole


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"host": parts.netloc, "protocol": "wss" if parts.scheme in ("https", "wss") else "ws"}


def _channel(address: str) -> dict[str, Any]:
    closing = "\n".join(f"- {code}: {meaning}" for code, meaning in CLOSE_CODES.items())
    return {
        "address": address,
        "title": "The socket",
        "description": f"One socket carries any number of runs. Each frame is text: one JSON object.\n\n"
        f"The server closes it with:\n\n{closing}",
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in {**CLIENT, **_SENT}},
        "bindings": {"ws": _handshake()},
        "x-close-codes": dict(CLOSE_CODES),
    }


def _handshake() -> dict[str, Any]:
    subprotocol = {
        "type": "string",
        "enum": [SUBPROTOCOL],
        "description": "A client that names any subprotocol has to name this one.",
    }
    return {
        "method": "GET",
        "headers": {"type": "object", "properties": {"Sec-WebSocket-Protocol": subprotocol}},
        "bindingVersion": "0.1.0",
    }


def _message(kind: str, message: Message) -> dict[str, Any]:
    has_ref = kind not in EVENTS
    return {
        "name": kind,
        "title": kind,
        "summary": message.summary,
        "payload": ref(name_of(kind)),
        **({"correlationId": {"location": "$message.payload#/ref"}} if has_ref else {}),
    }


def _call(kind: str, message: Message) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": _CHANNEL},
        "summary": message.summary,
        "messages": [{"$ref": f"{_CHANNEL}/messages/{kind}"}],
        "reply": {
            "channel": {"$ref": _CHANNEL},
            "messages": [{"$ref": f"{_CHANNEL}/messages/{answer}"} for answer in message.answers],
        },
    }


def _events() -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": _CHANNEL},
        "summary": "What happens to the runs that the socket follows.",
        "messages": [{"$ref": f"{_CHANNEL}/messages/{kind}"} for kind in (*EVENTS, "error")],
    }


def _without_discriminators(part: Any) -> Any:
    """The part without OpenAPI's `discriminator`, an object; AsyncAPI has another one. `const` says the same."""
    if isinstance(part, list):
        return [_without_discriminators(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    return {
        name: _without_discriminators(inner)
        for name, inner in part.items()
        if not (name == "discriminator" and isinstance(inner, Mapping) and "propertyName" in inner)
    }
