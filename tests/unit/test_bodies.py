"""A large body stays in the file where daphne has it, and every server sees a coroutine function."""

import asyncio
import inspect
from functools import partial
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any

import pytest
from asgiref.compatibility import is_double_callable

from taskapi.callers.bodies import SWITCH, Body, in_its_file, leave_forms_to_django
from tests.project.asgi import application

# If an upgrade of daphne or Twisted moves what `bodies` looks into, the tests here fail, and so does that of 200 MB.


class Request:
    """What daphne has of a request."""

    def __init__(self, content: Any) -> None:
        self.content = content


async def reply(request: Request, message: Any) -> None:
    """As the method of which daphne's `send` is a partial."""


async def nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_server_sees_a_coroutine_function() -> None:
    assert asyncio.iscoroutinefunction(application.__call__)
    assert inspect.iscoroutinefunction(application.__call__)
    assert not is_double_callable(application)


def test_requests_of_daphne_leave_forms_to_django(monkeypatch: pytest.MonkeyPatch) -> None:
    import daphne.http_protocol as daphne

    monkeypatch.setattr(daphne, "WebRequest", getattr(daphne.WebRequest, "func", daphne.WebRequest))
    leave_forms_to_django()
    leave_forms_to_django()  # one application more changes nothing
    assert isinstance(daphne.WebRequest, partial)
    assert daphne.WebRequest.keywords == {SWITCH: False}
    assert "WebRequest" in inspect.getsource(daphne.HTTPFactory.buildProtocol)


def test_daphne_gives_its_applications_what_has_the_body() -> None:
    from daphne.server import Server

    assert "send=partial(self.handle_reply, protocol)" in inspect.getsource(Server.create_application)


async def test_a_body_in_a_file_is_taken_away_before_daphne_reads_it() -> None:
    with TemporaryFile() as file:
        file.write(b"x" * 600_000)
        file.seek(0)
        request = Request(file)
        receive = in_its_file(nothing, partial(reply, request))
        assert isinstance(receive, Body)
        assert request.content.read() == b""
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        assert size == 600_000
        assert await receive() == await nothing()  # what the server says next


def test_a_body_that_daphne_has_read_is_left_where_it_is() -> None:
    with TemporaryFile() as file:
        file.write(b"x" * 600_000)  # it is at its end, as after it was read
        request = Request(file)
        assert in_its_file(nothing, partial(reply, request)) is nothing
        assert request.content is file


def test_a_small_body_is_left_to_daphne_and_each_body_to_other_servers() -> None:
    assert in_its_file(nothing, partial(reply, Request(BytesIO(b"x")))) is nothing
    assert in_its_file(nothing, reply) is nothing
    assert in_its_file(nothing, partial(reply, object())) is nothing
