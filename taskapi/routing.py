"""``URLRouter(websocket_urlpatterns)``: the WebSocket beside the REST URLs."""

from typing import Any

from django.urls import path

from taskapi.consumers import TaskConsumer
from taskapi.engines.serving import serve

_consumer: Any = TaskConsumer.as_asgi()


async def _serve_socket(scope: Any, receive: Any, send: Any) -> None:
    serve()
    await _consumer(scope, receive, send)


_application: Any = _serve_socket  # Channels routes with Django's `path`, to applications and not to views

websocket_urlpatterns: list[Any] = [path("tasks/ws/", _application)]
