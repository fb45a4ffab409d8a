"""Each answer that a test gets is one that the OpenAPI document describes: its status, its headers and its body."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import responses
from typing import Any

import django.test
import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from taskapi.schemas.openapi import document

#: Headers of HTTP itself, of the server and of Django's middleware: they stand with any answer.
GENERAL = frozenset(
    {
        "allow", "connection", "content-encoding", "content-language", "content-length", "content-type",
        "cross-origin-opener-policy", "date", "referrer-policy", "server", "set-cookie", "transfer-encoding", "vary",
        "x-accel-buffering", "x-content-type-options", "x-frame-options",
    }
)  # fmt: skip
CORS = "access-control-"  # the beginning of headers that django-cors-headers adds

#: What a method that a path does not have is answered with: OpenAPI has no place for these.
OTHER_METHOD = {"401", "403", "405", "406", "503"}


def assert_described(
    method: str, path: str, status: int, headers: Mapping[str, str], body: bytes | None = None
) -> None:
    """Fail if the answer is to one of our calls and the document lacks it. `body` is None if nobody may read it."""
    route = route_of(path)
    if route is None or method == "OPTIONS" or status not in responses:  # a status that a test's own class has made up
        return
    said = f"{method} {path} was answered {status}, but the OpenAPI document "
    verb = "get" if method == "HEAD" else method.lower()
    if verb not in the_document()["paths"][route]:
        assert str(status) in OTHER_METHOD, f"{said}has no such method"
        return
    answer = answer_of(route, verb, str(status))
    assert answer is not None, f"{said}has no such status: {body!r}"
    unknown = {name.lower() for name in headers} - {name.lower() for name in answer.get("headers", {})} - GENERAL
    assert not {name for name in unknown if not name.startswith(CORS)}, f"{said}has no header {unknown}"
    if method == "HEAD" or (not body and "content" not in answer):
        return
    kind = headers.get("Content-Type", "").partition(";")[0]
    assert kind in answer.get("content", {}), f"{said}has no {kind or 'body'} there: {body!r}"
    if body is not None and kind.endswith("json"):
        problem = next(validator(route, verb, str(status), kind).iter_errors(json.loads(body)), None)
        assert problem is None, f"{said}has another body: {explained(problem)}\n{body!r}"


def explained(problem: Any) -> str:
    """What is wrong, and where; of several choices, what is wrong with the likeliest one."""
    likeliest = best_match([problem])
    return f"{likeliest.json_path}: {likeliest.message[:300]}"


@cache
def the_document() -> dict[str, Any]:
    """The document without tasks: no answer depends on them."""
    return document((), "/")


@cache
def routes() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(f".*{route.replace('{uuid}', '[0-9a-f-]{36}')}"), route) for route in the_document()["paths"]]


def route_of(path: str) -> str | None:
    """The path of the document that a URL's path is, wherever our URLs are mounted."""
    return next((route for pattern, route in routes() if pattern.fullmatch(path)), None)


@cache
def answer_of(route: str, verb: str, status: str) -> dict[str, Any] | None:
    answer: dict[str, Any] | None = the_document()["paths"][route][verb]["responses"].get(status)
    if answer is not None and "$ref" in answer:
        answer = the_document()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer


@cache
def validator(route: str, verb: str, status: str, kind: str) -> Draft202012Validator:
    answer = answer_of(route, verb, status)
    assert answer is not None
    whole = {**answer["content"][kind]["schema"], "components": the_document()["components"]}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


# Where the answers come from


def check_httpx(response: httpx.Response) -> None:
    """An event hook of an httpx client."""
    kind = response.headers.get("Content-Type", "")
    body = None if kind.startswith("text/event-stream") else response.read()
    request = response.request
    assert_described(request.method, request.url.path, response.status_code, response.headers, body)


def check_django(response: Any) -> None:
    """An answer of Django's test client, or of REST framework's."""
    body = None if response.streaming else response.content
    if response.headers.get("Content-Encoding") == "gzip" and body:
        body = gzip.decompress(body)
    asked = response.request  # a WSGI environment, or an ASGI scope
    method, path = asked.get("REQUEST_METHOD") or asked["method"], asked.get("PATH_INFO") or asked["path"]
    assert_described(method, path, response.status_code, response.headers, body)


@contextmanager
def checked_test_clients() -> Iterator[None]:
    """Inside, each answer of Django's and REST framework's test clients is checked."""
    request, async_request = django.test.Client.request, django.test.AsyncClient.request

    def checked(self: Any, **kwargs: Any) -> Any:
        response = request(self, **kwargs)
        check_django(response)
        return response

    async def checked_async(self: Any, **kwargs: Any) -> Any:
        response = await async_request(self, **kwargs)
        check_django(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(django.test.Client, "request", checked)
        patch.setattr(django.test.AsyncClient, "request", checked_async)
        yield
