"""Pages that follow a run with htmx 4 or htmx 2. None of them has a script of its own."""

from collections.abc import Callable

from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import include, path

from taskapi.models import TaskInfo

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
#: By the version of htmx, the scripts of a page.
SCRIPTS = {
    4: ("htmx4/htmx.min.js", "htmx4/ext/hx-sse.min.js"),
    2: ("htmx2/htmx.min.js", "htmx2-sse/sse.min.js"),
}


def strict(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Allow a page nothing inline: no script and no style."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


def show(request: HttpRequest, version: int, uuid: str) -> HttpResponse:
    """The page of a run."""
    run = get_object_or_404(TaskInfo, uuid=uuid)
    return render(request, "run.html", {"run": run, "scripts": SCRIPTS[version], "style": request.GET.get("style")})


def empty(request: HttpRequest, version: int) -> HttpResponse:
    """A page with a button that loads the part that follows a run."""
    return render(request, "empty.html", {"uuid": request.GET["uuid"], "scripts": SCRIPTS[version]})


def part(request: HttpRequest, uuid: str) -> HttpResponse:
    return render(request, "taskapi/run.html", {"run": get_object_or_404(TaskInfo, uuid=uuid)})


def report(request: HttpRequest, uuid: str) -> HttpResponse:
    """What the template of the task `report` loads at the end."""
    count = TaskInfo.objects.get(uuid=uuid).message_count
    return HttpResponse(f"<p>The report has {count} lines.</p>")


urlpatterns = [
    path("<int:version>/runs/<uuid:uuid>/", show),
    path("<int:version>/", empty),
    path("part/<uuid:uuid>/", part, name="part"),
    path("report/<uuid:uuid>/", report, name="report"),
    path("static/<path:path>", serve, {"insecure": True}),  # insecure, but only tests use this server
    path("", include("taskapi.urls")),
]
