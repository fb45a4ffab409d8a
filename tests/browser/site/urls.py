"""The page, the JavaScript client as it is built, and the API."""

from pathlib import Path

from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

PAGE = Path(__file__).with_name("page.html")


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE.read_text())


urlpatterns = [
    path("", page),
    path("elsewhere", page),
    path("static/<path:path>", serve, {"insecure": True}),  # a test's server is nobody else's
    path("", include("taskapi.urls")),
]
