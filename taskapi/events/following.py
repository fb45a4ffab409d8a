"""Following runs without a socket: what a WebSocket, a server-sent stream, a long poll and a test have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any
from uuid import UUID

from taskapi import protocol
from taskapi.backends.attendance import hint_for, waits_long
from taskapi.conf import settings
from taskapi.events.hub import Hub, get_hub
from taskapi.events.subscription import Subscription
from taskapi.models import TaskInfo
from taskapi.protocol import Message
from taskapi.store.database import in_database
from taskapi.store.messages import SHOWN, read_messages


def find_run(uuid: UUID) -> TaskInfo:
    """The run, for a reader that may see every run; DoesNotExist if there is none."""
    return TaskInfo.rows().get(uuid=uuid)


class Following:
    """The runs that one reader follows. `send` gets their frames as text: for each run a snapshot, then its events.

    If `send` waits, only this reader waits. What is said meanwhile is kept up to a limit; beyond it, the row is read
    instead. Use it as `async with Following(send) as following`, or with `open` and `close`.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._subscriptions: dict[UUID, Subscription] = {}
        self._hub: Hub | None = None

    def open(self) -> None:
        """Begin to hear events; runs can be followed from now on."""
        self._hub = get_hub()
        self._hub.open()

    async def close(self) -> None:
        """Follow nothing any more."""
        self.drop_all()
        if self._hub is not None:
            hub, self._hub = self._hub, None
            await hub.close()
        self._send = _drop_text  # the reader refers to this, so this no longer refers to the reader

    async def __aenter__(self) -> Following:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def follow(
        self, uuid: UUID, answer: dict[str, Any], find: Callable[[UUID], TaskInfo], after: int = 0
    ) -> None:
        """Send `answer` with the run as it is, and then what happens to it, until it has ended.

        `find` is called in the thread of the database. It returns the run, or raises if the reader may not see it. The
        snapshot has the messages past the first `after`. A second call for a run takes the place of the first.
        """
        self.drop(uuid)
        subscription = await self.expect(uuid)
        try:
            info, messages = await in_database(_read, find, uuid, after)
            if not info.is_loaded("inputs", "outputs"):
                await asyncio.to_thread(info.load, "inputs", "outputs")
            if waits_long(info):
                info.hint = await asyncio.to_thread(hint_for, info)
            await self.start(subscription, answer, info, after, messages)
        except BaseException:
            self._forget(subscription)
            raise
        if subscription.ended:
            self._forget(subscription)

    async def expect(self, uuid: UUID) -> Subscription:
        """Hear of a run, which need not exist yet. Nothing is sent before `start`."""
        if self._hub is None:
            raise RuntimeError("Following is not open: use it in `async with`, or call `open` first.")
        subscription = self._subscriptions[uuid] = Subscription(uuid, self._send, self._forget)
        await self._hub.add(subscription)
        return subscription

    def start(
        self,
        subscription: Subscription,
        answer: dict[str, Any],
        info: TaskInfo,
        after: int = 0,
        messages: Sequence[Message] = (),
    ) -> Coroutine[Any, Any, None]:
        """Send `answer` with the run as it is in `info`, and then what has happened since."""
        snapshot = protocol.snapshot(answer, info, after, messages, settings.sent_frame_bytes)
        return subscription.start(info, snapshot)

    def drop(self, uuid: UUID) -> None:
        """Stop following the run; nothing happens if it is not followed."""
        subscription = self._subscriptions.pop(uuid, None)
        if subscription is not None and self._hub is not None:
            self._hub.remove(subscription)

    def drop_all(self) -> None:
        """Stop following every run."""
        for uuid in list(self._subscriptions):
            self.drop(uuid)

    def _forget(self, subscription: Subscription) -> None:
        """Drop this subscription, unless another of its run has taken its place."""
        if self._subscriptions.get(subscription.uuid) is subscription:
            self.drop(subscription.uuid)


async def _drop_text(text: str) -> None:
    """What a closed `Following` sends."""


def _read(find: Callable[[UUID], TaskInfo], uuid: UUID, after: int) -> tuple[TaskInfo, list[Message]]:
    """The run, and the messages that the snapshot is likely to have room for."""
    info = find(uuid)
    return info, read_messages(info, after, SHOWN)
