"""Tasks that a worker has to survive: they fork, exit, and leave threads behind. Most use the queue `aside`."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from taskapi.params import IntParameter, ListParameter, StringParameter
from taskapi.tasks import Task

LONG = 600  # seconds: longer than any test


class Fork(Task):
    """Start child processes in one of Python's ways, and return their process ids."""

    name = "fork"
    queue = "aside"
    inputs = {"how": StringParameter()}
    outputs = {"pids": ListParameter(IntParameter())}

    def run(self, how):
        User.objects.count()  # opens a connection, which the child inherits
        pids = getattr(self, how)()
        User.objects.count()
        return pids

    def pool(self):
        with context().Pool(2) as pool:
            pids = pool.map(count_users, range(4))
        pool.join()
        return pids

    def pool_that_is_left(self):
        self.left = context().Pool(2)
        return [child.pid for child in multiprocessing.active_children() if child.daemon]

    def terminate(self):
        child = context().Process(target=time.sleep, args=(LONG,))
        child.start()
        child.terminate()
        child.join(20)
        assert child.exitcode == -signal.SIGTERM, child.exitcode
        return [child.pid]

    def interrupt(self):
        child = context().Process(target=time.sleep, args=(LONG,))
        child.start()
        os.kill(child.pid, signal.SIGUSR1)
        child.join(20)
        assert child.exitcode == -signal.SIGUSR1, child.exitcode
        return [child.pid]

    def executor(self):
        with ProcessPoolExecutor(2, mp_context=context()) as executor:
            return list(executor.map(count_users, range(4)))

    def subprocess(self):
        with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONG})"]) as child:
            child.terminate()
            assert child.wait(20) == -signal.SIGTERM
        return [child.pid]

    def by_hand(self):
        pid = os.fork()
        if pid == 0:
            return []  # a child that returns into the worker's code: wrong, but it happens
        assert os.waitpid(pid, 0)[1] == 0
        return [pid]


class AloneFork(Fork):
    name = "alone_fork"
    isolation = "process"


class AsyncFork(Fork):
    name = "async_fork"

    async def run(self, how):
        return await asyncio.to_thread(super().run, how)


def context():
    return multiprocessing.get_context("fork")


def count_users(n):
    """Use a connection of the child's own."""
    User.objects.count()
    return os.getpid()


class Exit(Task):
    """Call `sys.exit` in one of several places, as if it would end only the task."""

    name = "exit"
    queue = "aside"
    inputs = {"how": StringParameter()}

    async def run(self, how):
        loop = asyncio.get_running_loop()
        match how:
            case "gather":
                await asyncio.gather(leave(), asyncio.sleep(LONG))
            case "callback":
                loop.call_soon(sys.exit, 0)
                await asyncio.sleep(LONG)
            case "interrupt":
                leaving = loop.create_task(leave(KeyboardInterrupt()))
                await asyncio.sleep(LONG)
                await leaving


async def leave(error=None):
    raise error or SystemExit(0)


class LeavesThreads(Task):
    """Time out, and leave threads that go on."""

    name = "leaves_threads"
    queue = "aside"
    timeout = 0.1

    async def run(self):
        loop = asyncio.get_running_loop()
        self.deaf = loop.create_task(deaf())
        await asyncio.gather(
            asyncio.to_thread(time.sleep, LONG),
            sync_to_async(time.sleep)(LONG),
            sync_to_async(time.sleep, thread_sensitive=False)(LONG),
        )


class DefaultExit(Exit):
    name = "default_exit"
    queue = "default"


class DefaultLeavesThreads(LeavesThreads):
    name = "default_leaves_threads"
    queue = "default"


async def deaf():
    """Ignore every cancellation."""
    while True:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            continue
