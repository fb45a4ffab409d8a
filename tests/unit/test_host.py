"""A host: what executes runs, in any process and on any event loop, and for any queue."""

import ast
import asyncio
import re
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

import taskapi
from taskapi import runs
from taskapi.exceptions import UnknownRun
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.workers import leases, upkeep
from taskapi.workers.host import Host
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory_layer", "queue")]


class Double(Task):
    name = "double"
    inputs = {"n": IntParameter()}
    outputs = {"n": IntParameter()}

    def run(self, n):
        return 2 * n


class AsyncDouble(Double):
    name = "async_double"

    async def run(self, n):
        return 2 * n


class Patient(Task):
    """Waits until it is stopped."""

    name = "patient"

    async def run(self):
        self.add_message("waiting")
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Double, AsyncDouble, Patient]


async def is_running(info):
    async with asyncio.timeout(20):
        while info.message_count == 0:
            await info.arefresh_from_db()


async def execute_both(host):
    """Execute a sync and an async task; their outputs."""
    started = [await task.astart({"n": n}) for n, task in enumerate((Double, AsyncDouble), 1)]
    assert await asyncio.gather(*(host.execute(info.uuid) for info in started)) == [True, True]
    return [await info.aresult(timeout=20) for info in started]


async def test_a_host_executes_runs():
    async with Host() as host:
        assert await execute_both(host) == [{"n": 2}, {"n": 4}]


async def test_a_host_says_what_it_did_not_execute():
    ended = await TaskInfo.objects.acreate(task="double", status="failed")
    async with Host() as host:
        assert await host.execute(ended.uuid) is False
        with pytest.raises(UnknownRun):
            await host.execute(TaskInfo().uuid)


def test_a_host_starts_on_a_loop_that_is_not_the_main_threads():
    found = []

    async def main():
        async with Host() as host:
            found.extend(await execute_both(host))

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    thread.join(30)
    assert found == [{"n": 2}, {"n": 4}]


async def test_two_hosts_share_a_process_and_a_loop():
    """Each holds its own runs, and one goes on when the other stops."""
    async with Host() as first:
        async with Host() as second:
            assert first.identity != second.identity
            patient = await Patient.astart()
            executing = asyncio.ensure_future(second.execute(patient.uuid))
            await is_running(patient)
            assert patient.worker == second.identity
            assert await execute_both(first) == [{"n": 2}, {"n": 4}]
            assert not executing.done()
        await patient.arefresh_from_db()
        assert (patient.status, patient.handed_back) == ("pending", 1)
        assert await execute_both(first) == [{"n": 2}, {"n": 4}]


def test_two_hosts_share_a_process_on_loops_of_their_own():
    found = {}
    both = threading.Barrier(2, timeout=20)

    async def main(name):
        async with Host(identity=name) as host:
            await asyncio.to_thread(both.wait)
            found[name] = await execute_both(host)

    threads = [threading.Thread(target=asyncio.run, args=[main(name)]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {"one": [{"n": 2}, {"n": 4}], "two": [{"n": 2}, {"n": 4}]}


async def test_a_host_changes_no_signal_handler_and_no_setting_of_the_process():
    def state():
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        return handlers, descriptor, sys.getswitchinterval()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    try:
        before = state()
        async with Host() as host:
            await execute_both(host)
            assert state() == before
        assert state() == before
    finally:
        sys.setswitchinterval(usual)


async def test_a_host_that_stops_hands_back_what_it_executes():
    host = Host()
    host.start()
    info = await Patient.astart()
    executing = asyncio.ensure_future(host.execute(info.uuid))
    await is_running(info)
    assert await host.stop() is False, "a task was interrupted, and may have left a thread"
    assert await executing is True
    await info.arefresh_from_db()
    assert (info.status, info.handed_back, info.worker) == ("pending", 1, "")


async def test_a_host_that_is_idle_when_it_stops_leaves_nothing_behind():
    before = {task.get_name() for task in asyncio.all_tasks()}
    host = Host(queues=["default"])
    host.start()
    await execute_both(host)
    assert await host.stop() is True
    await until(lambda: {task.get_name() for task in asyncio.all_tasks()} == before)
    await until(lambda: not host._leases.is_alive())


@pytest.mark.parametrize("queues", [[], ["default"]])
async def test_a_host_queues_again_what_waits_in_the_queues_that_it_was_given(queue, monkeypatch, queues):
    monkeypatch.setattr("taskapi.workers.host.SWEEP_INTERVAL", 0.02)
    monkeypatch.setattr(upkeep, "SWEEP_AGE", timedelta(0))
    info = await TaskInfo.objects.acreate(task="double", inputs={"n": 1})
    other = await TaskInfo.objects.acreate(task="double", inputs={"n": 1}, queue="other")
    lost = await TaskInfo.objects.acreate(
        task="double", queue="other", status="running", attempt=3, renewed=timezone.now() - 2 * runs.LEASE
    )
    async with Host(queues=queues), asyncio.timeout(20):
        while not lost.is_final:  # lost runs are taken back whatever their queue is
            await lost.arefresh_from_db()
        if queues:
            await until(lambda: queue.jobs)
    assert [job.uuid for job in queue.jobs] == ([info.uuid] if queues else [])
    await other.arefresh_from_db()
    assert other.status == "pending"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread ends with an error
async def test_a_host_that_can_do_its_work_no_more_says_so_once(monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.02)
    monkeypatch.setattr("taskapi.workers.host.WATCH_INTERVAL", 0.02)

    def end_the_thread(*args):
        raise SystemExit

    monkeypatch.setattr(leases, "renew", end_the_thread)
    said = []
    async with Host(on_failure=said.append) as host:
        info = await Patient.astart()
        executing = asyncio.ensure_future(host.execute(info.uuid))
        await until(lambda: said)
        await asyncio.sleep(0.1)  # a few more looks
        assert (said, host.failed) == (["the thread that renews its leases has ended"], True)
    assert await executing is True
    await info.arefresh_from_db()
    assert (info.status, info.handed_back) == ("pending", 1)


async def test_a_host_without_a_callback_says_so_in_the_log(caplog):
    async with Host() as host:
        host._fail("it was told so")
    assert "A host cannot execute runs any more: it was told so. Stop it" in caplog.text


# Queues


PACKAGE = Path(taskapi.__file__).parent
EXECUTES = [*PACKAGE.glob("workers/**/*.py"), *PACKAGE.glob("management/commands/*.py")]


@pytest.mark.parametrize("file", EXECUTES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_that_executes_names_a_queue(file):
    """In its code; comments and docstrings may."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    found = ast.unparse(tree).lower()
    assert not re.search(r"redis|\barq", found)
