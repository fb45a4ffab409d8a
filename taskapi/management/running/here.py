"""A run in the database of this project, followed through its row and its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from taskapi.backends import get_backend
from taskapi.conf import settings
from taskapi.events.following import Following
from taskapi.management.running.following import TOO_LONG, Follower, RunGone
from taskapi.models import TaskInfo
from taskapi.protocol import represent
from taskapi.tasks import Task


class RunHere:
    """A run of this project, which this starts."""

    def __init__(self, task: type[Task], inputs: dict[str, Any]) -> None:
        self._info = task.start(inputs)
        self.uuid = str(self._info.uuid)

    async def follow(self, follower: Follower) -> dict[str, Any]:
        ended = asyncio.Event()

        async def send(text: str) -> None:
            _take(json.loads(text), follower, ended.set)

        async with Following(send) as following:
            await following.follow(self._info.uuid, {"type": "snapshot"})
            await ended.wait()
        try:
            await self._info.arefresh_from_db()
        except TaskInfo.DoesNotExist:
            raise RunGone("The run was deleted before it had ended.") from None
        return represent(self._info)

    async def cancel(self) -> bool:
        return await sync_to_async(self._info.cancel)()

    @property
    def nobody_takes_it(self) -> str:
        if not get_backend().has_worker_queue:
            return f"Nothing executes the run yet. TASK_API_BACKEND is {settings.backend!r}."
        queue = "" if self._info.queue == Task.queue else f" --queue {self._info.queue}"
        return f"No worker takes the run. Start one in another terminal: python manage.py taskworker{queue}"


def _take(frame: dict[str, Any], follower: Follower, ended: Callable[[], object]) -> None:
    match frame["type"]:
        case "snapshot":
            for message in frame["task"]["messages"]:
                follower.message(message)
            follower.become(frame["task"])
        case "message":
            follower.message(TOO_LONG if frame.get("omitted") else frame["message"])
        case "finished" | "error":  # of an error, the row says more: it is not there
            ended()
        case _:
            follower.become(frame)
