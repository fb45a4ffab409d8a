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
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    TASK_API_BACKEND="__main__.Queue",
    TASK_API_BACKGROUND_TASKS=[Count, Patient],
    USE_TZ=True,
)
django.setup()

from taskapi.backends import get_backend  # noqa: E402 - | they need the settings
from taskapi.workers.host import Host  # noqa: E402 - |


async def serve(host):
    """Execute what is queued, until this is cancelled."""
    queue, executing = get_backend(), set()
    while True:
        uuid = await queue.take(0.1)
        if uuid is not None:
            executing.add(task := asyncio.create_task(host.execute(uuid)))
            task.add_done_callback(executing.discard)


async def follow(info):
    """What the row of the run says, from now to its end."""
    seen = []
    while True:
        await info.arefresh_from_db()
        state = [info.status, info.progress, info.target]
        if state not in seen:
            seen.append(state)
        if info.is_final:
            return seen
        await asyncio.sleep(0.01)


async def main():
    async with Host(queues=["default"], concurrency=4) as host:
        serving = asyncio.create_task(serve(host))
        counting, waiting = await Count.astart({"n": 5}), await Patient.astart()
        states = await follow(counting)
        outputs = await counting.aresult(timeout=30)
        while waiting.message_count == 0:
            await asyncio.sleep(0.01)
            await waiting.arefresh_from_db()
        await waiting.acancel()
        with suppress(TaskCancelled):
            await waiting.aresult(timeout=30)
        serving.cancel()
    messages = [message.body async for message in counting.log.order_by("index")]
    seen = {"states": states, "outputs": outputs, "messages": messages, "cancelled": waiting.status}
    print(json.dumps(seen | {"connected": connected}))  # noqa: T201 - the test reads it


call_command("migrate", verbosity=0)
asyncio.run(main())
