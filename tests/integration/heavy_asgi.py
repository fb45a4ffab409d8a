"""The application of `tests.integration.heavy`. Less patient with clients that do not read: a test waits for that."""

import os

from taskapi.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integration.heavy")

application = get_asgi_application()

from taskapi.views import events  # noqa: E402 - it needs Django to be set up

events.LONGEST_WAIT = 2.0
