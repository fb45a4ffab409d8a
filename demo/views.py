"""The demo's one page."""

from functools import cache
from importlib.metadata import version
from inspect import getsource
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie

from demo.background import AIRPORTS, MAX_BYTES, ProfileCsv, SumNumbers, WaitTask


@ensure_csrf_cookie  # the JavaScript client sends it back if a visitor is logged in
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "demo/page.html", context())


@cache
def context() -> dict[str, Any]:
    """Read from the code and the data what the page shows about them, so that it is never out of date."""
    with AIRPORTS.open("rb") as lines:
        airports = sum(1 for _ in lines) - 1  # the first line names the columns
    return {
        "airports": f"{airports:,}",
        "max_bytes": MAX_BYTES,
        "max_megabytes": MAX_BYTES // 10**6,
        "airports_version": version("airportsdata"),
        "sources": {task.__name__: getsource(task) for task in (ProfileCsv, SumNumbers, WaitTask)},
    }
