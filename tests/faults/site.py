"""The storm's web servers, as its clients see them: any of them may answer."""

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import httpx

from tests.faults.follower import PAUSE
from tests.faults.stack import FaultStack


class Site:
    """Sends requests to a web server of the stack, chosen at random, until one answers."""

    def __init__(self, stack: FaultStack) -> None:
        self.stack = stack
        self.client = httpx.AsyncClient(timeout=20)
        self.errors: list[tuple[float, httpx.Response]] = []  # answers of 500 and above, and when they were asked for

    async def close(self) -> None:
        await self.client.aclose()

    def url(self) -> str:
        return f"http://127.0.0.1:{random.choice(list(self.stack.ports.values()))}"  # noqa: S311 - no secret

    def ws_url(self) -> str:
        return f"{self.url().replace('http', 'ws')}/tasks/ws/"

    async def ask(self, method: str, path: str, url: str | None = None, **options: Any) -> httpx.Response:
        """The first answer below 500; other servers are asked until then."""
        while True:
            asked = time.time()
            try:
                answer = await self.client.request(method, (url or self.url()) + path, **options)
                if answer.status_code < 500:
                    return answer
                self.errors.append((asked, answer))
            except httpx.TransportError:
                pass
            await asyncio.sleep(PAUSE)

    async def enter(self, browser: httpx.AsyncClient, path: str) -> dict[str, str]:
        """Log in, and return the header that shows it."""
        while "sessionid" not in browser.cookies:
            with suppress(httpx.TransportError):
                await browser.post(self.url() + path)
            await asyncio.sleep(PAUSE)
        return {"Cookie": f"sessionid={browser.cookies['sessionid']}"}
