"""The ways in which a project makes its application, for the project of `tests.integration.bodies`."""

import os
from typing import Any

from channels.routing import ProtocolTypeRouter

from taskapi.asgi import get_asgi_application, get_http_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integration.bodies_settings")

bare = get_asgi_application()
routed = ProtocolTypeRouter({"http": get_http_application()})
nested = ProtocolTypeRouter({"http": bare})


async def wrapped(scope: Any, receive: Any, send: Any) -> None:
    """As ASGI middleware is, such as that of a service for monitoring."""
    await bare(scope, receive, send)
