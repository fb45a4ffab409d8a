from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()  # loads the apps, which the next import needs

from benchmarks.projects.afternoon.consumers import JobConsumer  # noqa: E402

application = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("ws/", JobConsumer.as_asgi())])})
