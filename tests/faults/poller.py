"""A subscriber without a WebSocket: it asks for its run again and again."""

import asyncio
from typing import Any

import httpx

from tests.faults.network import Road
from tests.faults.promises import FINAL
from tests.faults.site import Site

POLL_INTERVAL = 0.25  # seconds between two requests


class Poller:
    """Follows a run by REST, as a client without WebSockets does."""

    def __init__(self, site: Site, uuid: str, road: Road | None = None) -> None:
        self.site = site
        self.uuid = uuid
        self.road = road  # a proxy to the servers, where a stranger may answer
        self.messages: list[Any] = []
        self.answers: list[dict[str, Any]] = []

    async def follow(self) -> None:
        while not self.answers or self.answers[-1]["status"] not in FINAL:
            run = (await self._answer()).json()
            self.messages += run["messages"]
            self.answers.append(run)
            await asyncio.sleep(POLL_INTERVAL)

    async def _answer(self) -> httpx.Response:
        """The next answer of the server, which is JSON; a stranger's is not."""
        path = f"/tasks/{self.uuid}/?after={len(self.messages)}"
        while self.road is not None:
            answer = await self.site.ask("GET", path, url=self.road.url)
            if answer.headers["content-type"] == "application/json":
                return answer
            await asyncio.sleep(POLL_INTERVAL)
        return await self.site.ask("GET", path)

    def check(self, run: dict[str, Any]) -> None:
        """The last answer is the finished run, and nothing went backwards before."""
        assert self.messages == run["messages"]
        for name in ("status", "progress", "target", "seq", "message_count", "outputs", "error", "attempt"):
            assert self.answers[-1][name] == run[name]
        seqs = [answer["seq"] for answer in self.answers]
        assert seqs == sorted(seqs)
        progress = [(answer["attempt"], -1 if (at := answer["progress"]) is None else at) for answer in self.answers]
        assert progress == sorted(progress)
