"""What the ``asgi.py`` of a project needs::

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_asgi_application()
"""

from __future__ import annotations

import gc
from typing import Any

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path


def get_asgi_application(prefix: str = "") -> Any:
    """HTTP by Django, and the WebSocket at ``{prefix}tasks/ws/``.

    `prefix` is where ``include("taskapi.urls")`` is mounted: ``"api/"`` for ``path("api/", include(…))``.
    """
    http = get_http_application()  # sets Django up; what follows needs its models
    from taskapi.engines.serving import lifespan
    from taskapi.routing import websocket_urlpatterns

    sockets: Any = URLRouter(websocket_urlpatterns)
    routes: list[Any] = [path(prefix.lstrip("/"), sockets)]
    return ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes), "lifespan": lifespan})


def get_http_application() -> Any:
    """As Django's `get_asgi_application`, for a `ProtocolTypeRouter` of one's own: it answers polls faster.

    It also knows how much a client of a stream has not read yet, which Django's own handler does not tell.
    """
    django.setup(set_prefix=False)
    from taskapi.views.polls import Handler

    handler = Handler()
    gc.collect()
    gc.freeze()  # a full collection would look at all of the project's modules, and all requests wait for it
    return handler
