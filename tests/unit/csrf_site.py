"""A site of two views: a page with the script, and what only a browser with a CSRF token may call."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string("{% load taskapi %}{% task_script %}").render({}, request))


def unsafe(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


urlpatterns = [path("page/", page), path("unsafe/", unsafe)]
