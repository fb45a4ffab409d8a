"""The page, the committed build of the JavaScript client, and the API."""

import re
from pathlib import Path

from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path

PAGE = Path(__file__).with_name("page.html")

DOCS = Path(__file__).parents[3] / "docs" / "javascript.md"


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE.read_text())


def upload(request: HttpRequest) -> HttpResponse:
    """The sample of docs/javascript.md with a bar for the upload."""
    samples = re.findall(r"^```html\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    [sample] = [sample for sample in samples if 'on("upload"' in sample]
    return HttpResponse(engines["django"].from_string(sample).render(request=request))


urlpatterns = [
    path("", page),
    path("elsewhere", page),
    path("upload", upload),
    path("static/<path:path>", serve, {"insecure": True}),  # insecure, but only tests use this server
    path("", include("taskapi.urls")),
]
