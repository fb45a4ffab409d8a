"""``URLRouter(websocket_urlpatterns)``: the WebSocket beside the REST URLs."""

from django.urls import path

from taskapi.consumers import TaskConsumer

websocket_urlpatterns = [
    path("tasks/ws/", TaskConsumer.as_asgi())  # type: ignore[arg-type]  # Channels routes to ASGI applications
]
