"""The test project's addresses, and views for the storm: login, logout, a slow cancel, and a page."""

import time
from pathlib import Path

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

import taskapi
from taskapi.models import TaskInfo
from tests.faults.tasks import LOOK

SCRIPT = Path(taskapi.__file__).parent / "static" / "django-task-api.min.js"
PAGE = Path(__file__).parent / "page.html"
BACKEND = "django.contrib.auth.backends.ModelBackend"


@csrf_exempt
def enter(request, name, staff=False):
    """Log in as the user of that name, who is created if necessary."""
    user, _ = User.objects.get_or_create(username=name, is_staff=staff)
    login(request, user, BACKEND)
    return HttpResponse()


@csrf_exempt
def leave(request):
    """Log out, which flushes the session."""
    logout(request)
    return HttpResponse()


@csrf_exempt
def cancel_slowly(request, uuid, seconds):
    """Cancel a run, and commit after so many seconds, or as soon as the gate of the request exists."""
    gate = request.GET.get("gate")
    until = time.monotonic() + seconds
    with transaction.atomic():
        cancelled = TaskInfo.objects.get(uuid=uuid).cancel()
        while time.monotonic() < until and not (gate and Path(gate).exists()):
            time.sleep(LOOK)
    return HttpResponse("cancelling" if cancelled else "ended")


def page(request):
    return HttpResponse(PAGE.read_text().replace("SCRIPT", SCRIPT.read_text()))


urlpatterns = [
    path("", include("tests.project.urls")),
    path("enter/<str:name>/", enter),
    path("enter-as-staff/<str:name>/", enter, {"staff": True}),
    path("leave/", leave),
    path("cancel-slowly/<uuid:uuid>/<int:seconds>/", cancel_slowly),
    path("page/", page),
]
