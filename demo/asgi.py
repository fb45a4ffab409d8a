"""The demo as an ASGI application: `daphne demo.asgi:application`."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")

from taskapi.asgi import get_asgi_application  # after the settings are named

# daphne serves no static files, so this handler does. In production, let a web server in front of it serve them.
application = ASGIStaticFilesHandler(get_asgi_application())
