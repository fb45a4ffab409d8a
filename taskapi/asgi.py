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
    return _application({"http": http, "websocket": URLRouter(routes), "lifespan": lifespan})


def _application(routes: dict[str, Any]) -> Any:
    from taskapi.callers.bodies import in_its_file

    class Application(ProtocolTypeRouter):
        """The router. A large body of a request stays in the file where daphne has it."""

        def __init__(self) -> None:
            super().__init__(routes)
            # Servers look at this, to see a coroutine function. They call the one below, which has to act at once.
            self.__call__ = super().__call__  # type: ignore[method-assign]

        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            if scope["type"] == "http":
                receive = in_its_file(receive, send)
            return super().__call__(scope, receive, send)

    return Application()


def get_http_application() -> Any:
    """As Django's `get_asgi_application`, for a `ProtocolTypeRouter` of one's own: it answers polls faster.

    It also knows how much a client of a stream has not read yet, which Django's own handler does not tell.
    """
    django.setup(set_prefix=False)
    from taskapi.callers.bodies import leave_forms_to_django
    from taskapi.views.polls import Handler

    leave_forms_to_django()
    handler = Handler()
    gc.collect()
    gc.freeze()  # a full collection would look at all of the project's modules, and all requests wait for it
    return handler
