"""A project whose own views read the bodies of requests, in each way that Django knows."""

import gc
import hashlib
import json
from pathlib import Path

from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt


def told(content: bytes) -> JsonResponse:
    return JsonResponse({"size": len(content), "digest": hashlib.sha256(content).hexdigest()})


@csrf_exempt
def body(request: HttpRequest) -> JsonResponse:
    return told(request.body)


@csrf_exempt
def stream(request: HttpRequest) -> JsonResponse:
    """The body, as it is read in parts."""
    return told(b"".join(iter(lambda: request.read(1_000), b"")))


@csrf_exempt
def form(request: HttpRequest) -> JsonResponse:
    content = {name: request.POST[name] for name in sorted(request.POST)}
    return told(json.dumps(content).encode())


@csrf_exempt
def files(request: HttpRequest) -> JsonResponse:
    return told(b"".join(file.read() for name in sorted(request.FILES) for file in request.FILES.getlist(name)))


@csrf_exempt
def unread(request: HttpRequest) -> JsonResponse:
    return told(b"")


def still_open(request: HttpRequest) -> JsonResponse:
    """The temporary files that this process has open, without what only the garbage collector knows."""
    gc.collect()
    names = [_target(link) for link in Path("/proc/self/fd").iterdir()]
    return JsonResponse({"files": [name for name in names if "(deleted)" in name]})


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # that of the folder itself
        return ""


urlpatterns = [
    path("body/", body),
    path("stream/", stream),
    path("form/", form),
    path("files/", files),
    path("unread/", unread),
    path("still-open/", still_open),
    path("", include("taskapi.urls")),
]
