"""Settings of a project with much middleware, its requests in transactions, and its own name in PostgreSQL."""

from tests.project.settings import *  # noqa: F403
from tests.project.settings import DATABASES, MIDDLEWARE

NAME = "heavy"

ASGI_APPLICATION = "tests.integration.heavy_asgi.application"
DATABASES = {"default": {**DATABASES["default"], "ATOMIC_REQUESTS": True}}  # a copy: the other is the tests' own
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    DATABASES["default"]["OPTIONS"] = {"application_name": NAME}
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    *MIDDLEWARE,
    "django.middleware.locale.LocaleMiddleware",
    "tests.integration.heavy.Looks",
]


class Looks:
    """Knows no async, and looks at the user of each request, which is in the database."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        user = str(request.user)
        response = self.get_response(request)
        response["X-User"] = user
        return response
