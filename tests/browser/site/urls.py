"""The page, the committed build of the JavaScript client, and the API."""

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
    path("static/<path:path>", serve, {"insecure": True}),  # insecure, but only tests use this server
    path("", include("taskapi.urls")),
]
