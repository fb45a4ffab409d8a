"""The demo as an ASGI application: `daphne demo.asgi:application`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

from taskapi.asgi import get_asgi_application  # after the settings are named

application = get_asgi_application()
