"""A large body stays in the file where daphne has it, and every server sees a coroutine function."""

import asyncio
import inspect
from functools import partial
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any

from asgiref.compatibility import is_double_callable

from taskapi.callers.bodies import Body, in_its_file
from tests.project.asgi import application


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


def test_a_small_body_is_left_to_daphne_and_each_body_to_other_servers() -> None:
    assert in_its_file(nothing, partial(reply, Request(BytesIO(b"x")))) is nothing
    assert in_its_file(nothing, reply) is nothing
    assert in_its_file(nothing, partial(reply, object())) is nothing
