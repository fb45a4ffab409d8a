"""The `asgi.py` that `startproject` writes."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integration.mistaken")

application = get_asgi_application()
