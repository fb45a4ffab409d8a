"""A host on a thread and an event loop of its own, for code that has no loop that it could start one on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from taskapi.exceptions import UnknownRun
from taskapi.workers.host import DEFAULT_CONCURRENCY, Host

logger = logging.getLogger(__name__)


class HostThread:
    """Executes the runs that it is given, at most `concurrency` at once, from `start` to `stop`.

    Any thread may give it a run, and wait for its runs. A run that is due later than `soon` seconds is not waited for.
    """

    def __init__(self, concurrency: int = DEFAULT_CONCURRENCY, soon: float = 0.0) -> None:
        self._concurrency = concurrency
        self._soon = soon
        self._thread = threading.Thread(target=self._run, name="taskapi-host", daemon=True)
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._news = threading.Condition()
        self._awaited: Counter[UUID] = Counter()  # those that were given, are due soon, and have not ended
        self._executing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Returns when it is ready."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def execute(self, uuid: UUID, run_at: datetime | None = None) -> None:
        """Execute the run, not before `run_at`; it stays pending if this has stopped."""
        delay = 0.0 if run_at is None else max(0.0, (run_at - timezone.now()).total_seconds())
        is_awaited = delay <= self._soon
        if is_awaited:
            with self._news:
                self._awaited[uuid] += 1
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._later, delay, uuid, is_awaited)

    def wait(self, seconds: float) -> list[UUID]:
        """Wait until its runs have ended, for at most so many seconds; those that have not."""
        with self._news:
            self._news.wait_for(lambda: not self._awaited, seconds)
            return list(self._awaited)

    def stop(self) -> None:
        """Interrupt what runs, and hand it back; returns when the thread has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    # On its thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._started.is_set():
                logger.exception("The thread of a host has ended; its runs are not executed any more.")
            self._error = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(self._concurrency)
        async with Host(concurrency=self._concurrency) as self._host:
            self._started.set()
            await self._stopping.wait()
        if self._executing:  # they are about to end: the host has stopped what they execute
            await asyncio.wait(self._executing)

    def _later(self, delay: float, uuid: UUID, is_awaited: bool) -> None:
        if delay:
            self._loop.call_later(delay, self._begin, uuid, is_awaited)
        else:
            self._begin(uuid, is_awaited)

    def _begin(self, uuid: UUID, is_awaited: bool) -> None:
        executing = self._loop.create_task(self._execute(uuid, is_awaited))
        self._executing.add(executing)
        executing.add_done_callback(self._executing.discard)

    async def _execute(self, uuid: UUID, is_awaited: bool) -> None:
        try:
            async with self._slots:
                if not self._stopping.is_set():
                    await self._host.execute(uuid)
        except UnknownRun:  # it was deleted
            logger.debug("Run %s was deleted before it could begin.", uuid)
        except Exception:
            logger.exception("Run %s could not be executed.", uuid)
        finally:
            if is_awaited:
                with self._news:
                    self._awaited[uuid] -= 1
                    self._awaited += Counter()  # without those that are at zero
                    self._news.notify_all()
