"""What the ``asgi.py`` of a project needs::

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_asgi_application()
"""

from __future__ import annotations

from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application as get_django_application
from django.urls import path


def get_asgi_application(prefix: str = "") -> Any:
    """HTTP by Django, and the WebSocket at ``{prefix}tasks/ws/``.

    `prefix` is where ``include("taskapi.urls")`` is mounted: ``"api/"`` for ``path("api/", include(…))``.
    """
    django = get_django_application()  # sets Django up; what follows needs its models
    from taskapi.callers.backlog import TRANSPORT, transport_of
    from taskapi.engines.serving import lifespan
    from taskapi.routing import websocket_urlpatterns

    async def http(scope: Any, receive: Any, send: Any) -> None:
        await django({**scope, TRANSPORT: transport_of(send)}, receive, send)

    sockets: Any = URLRouter(websocket_urlpatterns)
    routes: list[Any] = [path(prefix.lstrip("/"), sockets)]
    return ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes), "lifespan": lifespan})
