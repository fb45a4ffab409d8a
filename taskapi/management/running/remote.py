"""A run on a server, over REST."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from taskapi.management.running.following import Follower
from taskapi.management.running.inputs import Unreadable
from taskapi.protocol.states import FINAL

T = TypeVar("T")

TOKEN = "TASK_API_TOKEN"  # noqa: S105 - the name of a variable, and no token
POLL_INTERVAL = 0.5  # seconds between two looks at the run
ANSWER_LIMIT = 30.0  # seconds for an answer
LONGEST_PAUSE = 10.0  # seconds between two tries while the server does not answer; doubling


class Refused(Exception):
    """The server has answered, and does not do it; `detail` is its answer, if it is JSON."""

    def __init__(self, message: str, status: int, detail: Any) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class _NoRedirects(HTTPRedirectHandler):
    """A redirect could carry the token to another server, and turns a POST into a GET."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class Server:
    """The API at `url`, which is where `tasks/` is: ``https://example.org/tasks/``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Unreadable(f"--url takes an address such as https://example.org/tasks/; it was given {url!r}.")
        path = parts.path if parts.path.strip("/") else "/tasks/"
        self.url = parts._replace(path=path.rstrip("/") + "/", query="", fragment="").geturl()
        self._opener = build_opener(_NoRedirects())

    def start(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """The representation of a new run."""
        return self.call("POST", "", {"task": name, "inputs": inputs})

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The answer. Raises Refused, and OSError if there is none."""
        headers = {"Accept": "application/json", **_authorization()}
        data = None
        if method == "POST":
            data = json.dumps({} if body is None else body).encode()
            headers["Content-Type"] = "application/json"
        request = Request(self.url + path, data, headers, method=method)  # noqa: S310 - http or https, as checked above
        try:
            with self._opener.open(request, timeout=ANSWER_LIMIT) as response:
                answer = json.load(response)
        except HTTPError as error:
            raise self._refusal(error) from None
        except HTTPException as error:  # it is no HTTP, or was cut off
            raise URLError(error) from error
        except ValueError:
            raise Refused(self._not_here("it does not answer in JSON"), 200, None) from None
        if not isinstance(answer, dict) or "uuid" not in answer:
            raise Refused(self._not_here("its answer is no run"), 200, answer)
        return answer

    def _refusal(self, error: HTTPError) -> Refused:
        with error:
            try:
                detail = json.load(error)
            except (ValueError, OSError, HTTPException):
                detail = None
        if error.code in (401, 403):
            has = "was refused" if _authorization() else "is not set"
            reason = _sentence(detail)
            return Refused(f"{self.url} needs to know you: {reason} {TOKEN} {has}.", error.code, detail)
        if 300 <= error.code < 400:
            to = error.headers.get("Location", "somewhere else")
            return Refused(f"{self.url} redirects to {to}: give that address.", error.code, detail)
        if detail is None and error.code < 500:
            return Refused(self._not_here(f"it answers {error.code}"), error.code, detail)
        return Refused(f"{self.url} answers {error.code}: {_sentence(detail)}", error.code, detail)

    def _not_here(self, why: str) -> str:
        return f"There is no Django Task API at {self.url}: {why}. --url takes the address of tasks/."


def _authorization() -> dict[str, str]:
    """The header for TASK_API_TOKEN: a bare token, or a whole value such as ``Bearer …``."""
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        return {}
    return {"Authorization": token if " " in token else f"Token {token}"}


def _sentence(detail: Any) -> str:
    if isinstance(detail, dict) and isinstance(detail.get("detail"), str):
        return str(detail["detail"])
    return "" if detail is None else json.dumps(detail, ensure_ascii=False)


async def _apart(call: Callable[..., T], *args: Any) -> T:
    """As `asyncio.to_thread`, but in a thread for which the end of the loop does not wait: a server may be silent."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(cast("T", result))
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = call(*args)
        except Exception as raised:  # noqa: BLE001 - it is raised where this is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True).start()
    return await future


class RemoteRun:
    """A run on a server, which this starts."""

    def __init__(self, server: Server, name: str, inputs: dict[str, Any]) -> None:
        self._server = server
        self._run = server.start(name, inputs)
        self.uuid = str(self._run["uuid"])
        self.is_executed_here = False

    async def follow(self, follower: Follower) -> dict[str, Any]:
        """Look at the run until it has ended."""
        known = 0
        run = self._run
        while True:
            for message in run.pop("messages", ()):
                known += 1
                follower.message(message)
            follower.become(run)
            if run["status"] in FINAL:
                return run
            await asyncio.sleep(POLL_INTERVAL)
            run = await self._look(known, follower)

    async def _look(self, known: int, follower: Follower) -> dict[str, Any]:
        """The run as it is now; tries again for as long as the server does not answer."""
        pause = POLL_INTERVAL
        while True:
            try:
                return await _apart(self._server.call, "GET", f"{self.uuid}/?after={known}")
            except Refused as error:
                if error.status < 500 and error.status != 429:
                    raise
                why: Exception = error
            except OSError as error:
                why = error
            if pause == POLL_INTERVAL:
                follower.display.tell(f"The server does not answer ({why}). The run goes on; this looks again.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def cancel(self) -> bool:
        try:
            await _apart(self._server.call, "POST", f"{self.uuid}/cancel/")
        except Refused as error:
            if error.status != 409:  # it has ended
                raise
            return False
        return True

    @property
    def nobody_takes_it(self) -> str:
        return "No worker of that server has taken the run yet."
