"""A run in the database of this project, followed through its row and its events.

If the backend executes runs where they are started, that is here: no server process need be there. This process then
executes this run alone, and leaves all others to the servers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from asgiref.sync import sync_to_async

from taskapi.backends import get_backend
from taskapi.conf import settings
from taskapi.events.following import Following, find_run
from taskapi.exceptions import UnknownRun
from taskapi.management.running.following import LEFT, TOO_LONG, Follower, RunGone
from taskapi.models import TaskInfo
from taskapi.protocol import represent
from taskapi.tasks import Task
from taskapi.workers.host import Host
from taskapi.workers.processes import end_in_a_moment

END_LIMIT = 1.0  # seconds for the execution to end once its host has stopped
LOOK_INTERVAL = 0.5  # seconds between two looks whether the run waits again, to be tried again say


class RunHere:
    """A run of this project, which this starts."""

    def __init__(self, task: type[Task], inputs: dict[str, Any]) -> None:
        self._info = task.start(inputs)
        self.uuid = str(self._info.uuid)
        self.is_executed_here = not (get_backend().other_processes or self._info.is_final)

    async def follow(self, follower: Follower) -> dict[str, Any]:
        ended = asyncio.Event()

        async def send(text: str) -> None:
            _take(json.loads(text), follower, ended.set)

        async with AsyncExitStack() as stack:
            following = await stack.enter_async_context(Following(send))
            await following.follow(self._info.uuid, {"type": "snapshot"}, find_run)
            if self.is_executed_here and not ended.is_set():
                await stack.enter_async_context(_executing(self._info))
            await ended.wait()
        try:
            await self._info.arefresh_from_db()
        except TaskInfo.DoesNotExist:
            raise RunGone("The run was deleted before it had ended.") from None
        return await asyncio.to_thread(represent, self._info)  # which may load large values

    async def cancel(self) -> bool:
        return await sync_to_async(self._info.cancel)()

    @property
    def nobody_takes_it(self) -> str:
        if not get_backend().has_worker_queue:
            return f"Nothing executes the run yet. TASK_API_BACKEND is {settings.backend!r}."
        queue = "" if self._info.queue == Task.queue else f" --queue {self._info.queue}"
        return f"No worker has taken the run yet. If none is running, start one: python manage.py taskworker{queue}"


@asynccontextmanager
async def _executing(info: TaskInfo) -> AsyncIterator[None]:
    """Execute the run inside, each time that it is due; at the end, hand it back if it still runs."""
    stopping = asyncio.Event()
    host = Host(concurrency=1)

    async def execute() -> None:
        while not stopping.is_set():
            with suppress(UnknownRun):  # it was deleted, and its follower says so
                await host.execute(info.uuid)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await stopping.wait()

    host.start()
    executing = asyncio.create_task(execute())
    try:
        yield
    finally:
        stopping.set()
        await host.stop()
        await asyncio.wait({executing}, timeout=END_LIMIT)
        if not executing.done():  # a thread of the task goes on, and Python would wait for it
            end_in_a_moment(status=LEFT)


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
