"""The site's URLs, with views for login, logout, the CSRF token, and requests from another origin."""

import re

from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import include, path

from tests.browser.site import urls


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    """Log in, from another tab or by fetch."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse(name)


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("nobody")


def with_token(request: HttpRequest, place: str) -> HttpResponse:
    """The page, with the CSRF token in one of several places, or nowhere."""
    places = {
        "meta": f'<meta name="csrf-token" content="{get_token(request)}">',
        "form": f'<form><input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}"></form>',
        "nowhere": "",
    }
    return HttpResponse(re.sub("<body>", f"<body>{places[place]}", urls.PAGE.read_text(), count=1))


urlpatterns = [
    path("login/<name>/", log_in),
    path("logout/", log_out),
    path("token/<place>/", with_token),
    path("cors/", include("taskapi.urls", namespace="cors")),
    *urls.urlpatterns,
]
