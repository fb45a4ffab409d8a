"""The demo as an ASGI application: `daphne demo.asgi:application`."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

from taskapi.asgi import get_asgi_application  # after the settings are named

# The handler serves the static files, which daphne does not; in production a web server in front of it would.
application = ASGIStaticFilesHandler(get_asgi_application())
