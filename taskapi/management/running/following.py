"""Following a run from a terminal: what is shown of it, and what Ctrl-C does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from taskapi.management.running.display import Display, State, as_text

LEFT = 130  # the exit code if the run was cancelled, or was left alone; shells have it for Ctrl-C
PATIENCE = 5.0  # seconds after which it is said that no worker takes the run
TOO_LONG = "(a message that is too long to be sent; it is in the database)"
SHOWN = ("status", "attempt", "progress", "target")


class RunGone(Exception):
    """There is nothing to follow any more."""


class Follower:
    """Hears what happens to a run, and shows it."""

    def __init__(self, name: str, display: Display) -> None:
        self.state = State(name)
        self.display = display
        self.is_told_why = False  # that the run waits for a worker, and why
        display.show(self.state)

    def become(self, news: Mapping[str, Any]) -> None:
        """Show what a representation, or an event, says about the run."""
        hint = news.get("hint")  # a server may have one: that no worker takes the run
        if hint and not self.is_told_why:
            self.tell_why(hint["message"])
        changes = {name: news[name] for name in SHOWN if name in news}
        if changes.get("attempt", self.state.attempt) != self.state.attempt:
            changes = {"progress": None, "target": None} | changes
        self.state = replace(self.state, **changes)
        self.display.show(self.state)

    def tell_why(self, text: str) -> None:
        """Say why the run waits."""
        self.is_told_why = True
        self.display.tell(text)

    def message(self, body: Any) -> None:
        self.display.tell(as_text(body))


class Run(Protocol):
    """A run that was started, wherever it is."""

    uuid: str
    is_executed_here: bool  # by this process

    async def follow(self, follower: Follower) -> dict[str, Any]:
        """Tell the follower what happens, until the run has ended; its representation then, without messages."""

    async def cancel(self) -> bool:
        """Ask the run to stop; False if it has ended."""

    @property
    def nobody_takes_it(self) -> str:
        """What to tell if no worker has taken it for PATIENCE."""


async def conduct(run: Run, name: str, display: Display) -> dict[str, Any] | None:
    """Show the run until it has ended; its representation, or None if Ctrl-C has left it alone."""
    display.open()
    try:
        return await _Conductor(run, Follower(name, display)).conduct()
    finally:
        display.close()


class _Conductor:
    def __init__(self, run: Run, follower: Follower) -> None:
        self._run = run
        self._follower = follower
        self._cancelling: asyncio.Task[None] | None = None
        self._left = asyncio.Event()

    async def conduct(self) -> dict[str, Any] | None:
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # it is not the main thread: there is no Ctrl-C
            loop.add_signal_handler(signal.SIGINT, self._ctrl_c)
        following = loop.create_task(self._run.follow(self._follower))
        leaving = loop.create_task(self._left.wait())
        impatience = loop.call_later(PATIENCE, self._lose_patience)
        try:
            await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            impatience.cancel()
            others = [task for task in (following, leaving, self._cancelling) if task is not None]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            loop.remove_signal_handler(signal.SIGINT)

    def _ctrl_c(self) -> None:
        if self._cancelling is not None:
            self._left.set()
            return
        self._follower.display.tell("Cancelling the run. Ctrl-C again leaves it alone.")
        self._cancelling = asyncio.get_running_loop().create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._run.cancel()
        except Exception as error:  # noqa: BLE001 - the database or the server is away, say; the run is followed on
            self._follower.display.tell(f"The run could not be cancelled: {error}")

    def _lose_patience(self) -> None:
        follower = self._follower
        if follower.state.status == "pending" and not follower.state.attempt and not follower.is_told_why:
            follower.tell_why(self._run.nobody_takes_it)
