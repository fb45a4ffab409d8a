"""Execute and follow runs in one plain Python script: with SQLite, a queue of ten lines, and no server.

    python -m tests.support.plain_host PATH_OF_A_NEW_DATABASE

It prints what it has seen, as JSON.
"""

import asyncio
import json
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue

import django
from django.conf import settings
from django.core.management import call_command

from taskapi.backends import Backend, WorkerQueue
from taskapi.exceptions import TaskCancelled
from taskapi.params import IntParameter
from taskapi.tasks import Task

connected = []  # the addresses to which this process has connected
sys.addaudithook(lambda event, args: connected.append(repr(args[1])) if event == "socket.connect" else None)


class Queue(Backend, WorkerQueue):
    """Both sides of a queue in this process."""

    jobs = SimpleQueue()

    def enqueue(self, uuid, *, queue, run_at=None):
        self.jobs.put(uuid)

    async def take(self, seconds):
        with suppress(Empty):
            return await asyncio.to_thread(self.jobs.get, timeout=seconds)


class Count(Task):
    name = "count"
    inputs = {"n": IntParameter()}
    outputs = {"counted": IntParameter()}

    async def run(self, n):
        self.set_target(n)
        for number in range(n):
            self.add_message(number)
            self.inc_progress()
            await asyncio.sleep(0.1)
        return n


class Patient(Task):
    """Waits until it is cancelled."""

    name = "patient"

    async def run(self):
        self.add_message("waiting")
        await asyncio.Event().wait()


settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "OPTIONS": {"timeout": 20}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "taskapi"],
    TASK_API_BACKEND="__main__.Queue",
    TASK_API_BACKGROUND_TASKS=[Count, Patient],
    USE_TZ=True,
)
django.setup()

from taskapi import events  # noqa: E402 - | they need the settings
from taskapi.backends import get_backend  # noqa: E402 - |
from taskapi.events.following import Following, find_run  # noqa: E402 - |
from taskapi.events.in_process import InProcessEvents  # noqa: E402 - |
from taskapi.workers.host import Host  # noqa: E402 - |


async def serve(host):
    """Execute what is queued, until this is cancelled."""
    queue, executing = get_backend(), set()
    while True:
        uuid = await queue.take(0.1)
        if uuid is not None:
            executing.add(task := asyncio.create_task(host.execute(uuid)))
            task.add_done_callback(executing.discard)


class Reader:
    """Keeps the frames of the runs that it follows."""

    def __init__(self):
        self.frames = {}
        self.news = asyncio.Condition()

    async def send(self, text):
        frame = json.loads(text)
        async with self.news:
            self.frames.setdefault(frame.get("uuid") or frame["task"]["uuid"], []).append(frame)
            self.news.notify_all()

    async def until(self, info, kind):
        """Wait until a frame of this kind has come for the run; all its frames."""
        async with asyncio.timeout(30), self.news:
            await self.news.wait_for(lambda: kind in {frame["type"] for frame in self.frames.get(str(info.uuid), [])})
        return self.frames[str(info.uuid)]


async def main():
    reader = Reader()
    async with Host(queues=["default"], concurrency=4) as host, Following(reader.send) as following:
        counting, waiting = await Count.astart({"n": 5}), await Patient.astart()
        for info in (counting, waiting):
            await following.follow(info.uuid, {"type": "snapshot"}, find_run)
        serving = asyncio.create_task(serve(host))
        await reader.until(waiting, "message")
        await waiting.acancel()
        with suppress(TaskCancelled):
            await waiting.aresult(timeout=30)
        outputs = await counting.aresult(timeout=30)
        frames = await reader.until(counting, "finished")
        serving.cancel()
    messages = [message.body async for message in counting.log.order_by("index")]
    seen = {"frames": frames, "outputs": outputs, "messages": messages, "cancelled": waiting.status}
    print(json.dumps(seen | {"connected": connected}))  # noqa: T201 - the test reads it


call_command("migrate", verbosity=0)
with events.using(InProcessEvents()):
    asyncio.run(main())
