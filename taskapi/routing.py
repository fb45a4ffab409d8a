"""``URLRouter(websocket_urlpatterns)``: the WebSocket beside the REST URLs."""

from typing import Any

from django.urls import path

from taskapi.consumers import TaskConsumer

_consumer: Any = TaskConsumer.as_asgi()  # Channels routes with Django's `path`, to applications and not to views

websocket_urlpatterns: list[Any] = [path("tasks/ws/", _consumer)]
