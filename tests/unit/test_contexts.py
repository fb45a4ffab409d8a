"""What a task's own code runs in: the next run finds nothing of it, and nothing waits for its threads."""

import asyncio
import decimal
import signal
import sys
import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from taskapi.models import TaskInfo
from taskapi.params import IntParameter, ListParameter, StringParameter
from taskapi.workers import contexts
from taskapi.workers.call import Interruption
from taskapi.workers.worker import complete
from tests.support.waiting import until
from tests.unit.test_executor import Bench, async_run, both, make, sync_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory_layer", "queue")]

ONE = {"n": IntParameter()}


@pytest.fixture
async def bench(settings):
    """An executor of one run at a time in threads: what a run leaves in its thread, the next one finds."""
    bench = Bench(settings, 1)
    yield bench
    assert not bench.executor.attempts
    await bench.executor.close()


@pytest.fixture
def gate():
    """What a task's thread waits for; it is open after the test."""
    gate = threading.Event()
    yield gate
    gate.set()


# Threads of tasks


async def in_thread(function):
    return await asyncio.to_thread(function)


async def in_many_threads(function):
    return (await asyncio.gather(*(asyncio.to_thread(function) for _ in range(100))))[0]


async def in_default_executor(function):
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def in_sensitive_thread(function):
    return await sync_to_async(function)()


async def in_insensitive_threads(function):
    return (await asyncio.gather(*(sync_to_async(function, thread_sensitive=False)() for _ in range(100))))[0]


async def by_the_async_orm(function):
    await User.objects.acount()
    return await sync_to_async(function)()


WAYS = [in_thread, in_many_threads, in_default_executor, in_sensitive_thread, in_insensitive_threads, by_the_async_orm]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def waiting(way, gate, begun):
    """A task that waits in a thread for the gate."""

    def wait():
        begun.set()
        gate.wait(60)

    async def run(self):
        await way(wait)

    return make(run)


@ways
async def test_what_a_worker_does_in_threads_does_not_wait_for_those_of_tasks(bench, gate, way):
    begun = threading.Event()
    _, executing = await bench.start(waiting(way, gate, begun))
    await until(begun.is_set)
    async with asyncio.timeout(20):
        assert await asyncio.to_thread(lambda: 3) == 3
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    assert not executing.done()
    gate.set()
    await executing


@ways
async def test_the_sync_calls_of_one_async_task_do_not_hold_up_another(bench, gate, way):
    begun = threading.Event()
    _, executing = await bench.start(waiting(way, gate, begun))
    await until(begun.is_set)

    async def run(self):
        return await way(lambda: 3) + await User.objects.acount()

    async with asyncio.timeout(20):
        assert (await bench.run(make(run, outputs=ONE))).outputs == {"n": 3}
    assert not executing.done()
    gate.set()
    await executing


@ways
async def test_a_run_ends_though_a_thread_that_it_has_left_goes_on(bench, gate, way):
    begun = threading.Event()
    info, executing = await bench.start(waiting(way, gate, begun))
    await until(begun.is_set)
    bench.executor.attempts[info.uuid, 1].interrupt(Interruption.CANCELLED)
    async with asyncio.timeout(20):
        await executing
    await info.arefresh_from_db()
    assert info.status == "cancelled"


async def test_a_loop_is_closed_though_a_thread_goes_on(gate):
    begun = threading.Event()

    async def main():
        contexts.prepare(asyncio.get_running_loop())
        surroundings = contexts.RunContext("a", contexts.contextvars.copy_context())
        asyncio.get_running_loop().create_task(in_thread(wait), context=surroundings.context)
        asyncio.get_running_loop().run_in_executor(None, wait)
        await asyncio.to_thread(begun.wait)

    def wait():
        begun.set()
        gate.wait(60)

    running = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    running.start()
    await until(lambda: not running.is_alive())


async def test_the_connections_of_an_async_task_end_with_it(bench, settings):
    used = []

    def note():
        used.append(connections["default"])
        assert connection.connection is not None

    async def run(self):
        await User.objects.acount()
        await sync_to_async(note)()
        await User.objects.acount()

    for _ in range(2):
        assert (await bench.run(make(run))).status == "succeeded"
        await until(lambda: used[-1].connection is None)
    assert used[0] is not used[1]


async def test_what_a_task_leaves_behind_on_the_loop_goes_on(bench):
    going_on, left = asyncio.Event(), []

    async def later():
        await going_on.wait()
        left.append(await asyncio.to_thread(lambda: 1))
        left.append(await sync_to_async(lambda: 2)())
        left.append(await User.objects.acount())
        await sync_to_async(connections.close_all)()

    async def run(self):
        self.left = asyncio.get_running_loop().create_task(later())
        tasks.append(self.left)

    tasks = []
    await bench.run(make(run))
    going_on.set()
    await tasks[0]
    assert left == [1, 2, 0]


async def test_a_sync_task_may_run_a_loop_and_wait_for_async_code(bench):
    async def count():
        return await User.objects.acount() + await asyncio.to_thread(lambda: 1)

    def body(self):
        return asyncio.run(count()) + async_to_sync(count)()

    assert (await bench.run(make(sync_run(body), outputs=ONE))).outputs == {"n": 2}


# What a run leaves behind


def leave_traces():
    timezone.activate("Asia/Tokyo")
    translation.activate("de")
    set_urlconf("tests.project.isolated")
    set_script_prefix("/elsewhere/")
    decimal.getcontext().prec = 3


def traces():
    return [
        timezone.get_current_timezone_name(),
        translation.get_language(),
        str(get_urlconf()),
        get_script_prefix(),
        str(decimal.getcontext().prec),
    ]


TRACES = {"traces": ListParameter(StringParameter())}


class Leaving(IntParameter):
    """A parameter whose conversion leaves traces in its thread."""

    def to_python(self, value):
        leave_traces()
        return super().to_python(value)

    def to_json(self, value):
        leave_traces()
        return super().to_json(value)


LEAVING = [
    make(sync_run(lambda self: leave_traces())),
    make(async_run(lambda self: leave_traces())),
    make(sync_run(lambda self: 1), outputs={"n": Leaving()}),
    make(async_run(lambda self: 1), outputs={"n": Leaving()}),
    make(sync_run(lambda self, n=0: None), inputs={"n": Leaving(default=1)}),
    make(async_run(lambda self, n=0: None), inputs={"n": Leaving(default=1)}),
    make(sync_run(lambda self: None), __init__=lambda self: leave_traces()),
    make(async_run(lambda self: None), __init__=lambda self: leave_traces()),
]


@both
@pytest.mark.parametrize("leaving", LEAVING)
async def test_nothing_that_a_run_activates_is_there_for_the_next(bench, flavour, leaving):
    looking = make(flavour(lambda self: traces()), outputs=TRACES)
    first = (await bench.run(looking)).outputs
    for _ in range(3):
        assert (await bench.run(leaving, {"n": 1} if leaving.inputs else None)).status == "succeeded"
        assert (await bench.run(looking)).outputs == first
    assert traces()[0] == "UTC"
    assert decimal.getcontext().prec == 28


class Zone(StringParameter):
    """The time zone in which it is converted."""

    def to_json(self, value):
        return timezone.get_current_timezone_name()


@both
@pytest.mark.parametrize("leaving", LEAVING[:2])
async def test_outputs_are_converted_as_the_run_itself_has_it(bench, flavour, leaving):
    await bench.run(leaving)
    assert (await bench.run(make(flavour(lambda self: ""), outputs={"zone": Zone()}))).outputs == {"zone": "UTC"}
    task = make(flavour(lambda self: timezone.activate("Asia/Tokyo") or ""), outputs={"zone": Zone()})
    assert (await bench.run(task)).outputs == {"zone": "Asia/Tokyo"}


def begin_a_transaction():
    transaction.atomic().__enter__()
    User.objects.create(username="lost")


def turn_autocommit_off():
    transaction.set_autocommit(False)
    User.objects.create(username="lost")


def turn_autocommit_off_and_close():
    transaction.set_autocommit(False)
    connection.close()


@pytest.mark.parametrize("leave", [begin_a_transaction, turn_autocommit_off])
@pytest.mark.parametrize("way", ["sync", "sensitive", "to_thread"])
async def test_a_connection_that_a_run_leaves_inside_a_transaction_is_closed(bench, caplog, leave, way):
    async def sensitive(self):
        await sync_to_async(leave)()

    async def threaded(self):
        await asyncio.to_thread(leave)

    run = {"sync": sync_run(lambda self: leave()), "sensitive": sensitive, "to_thread": threaded}[way]
    info = await bench.run(make(run))
    assert info.status == "succeeded"
    await until(lambda: f"Run {info.uuid} left its connection to the database 'default' inside" in caplog.text)
    again = await bench.run(make(sync_run(lambda self: User.objects.create(username="kept") and User.objects.count())))
    assert again.status == "succeeded"
    assert [user.username async for user in User.objects.all()] == ["kept"]
    assert caplog.text.count("left its connection") == 1


async def test_what_a_run_does_to_its_connection_does_not_concern_the_next(bench, caplog):
    def body(self):
        with connection.cursor():
            pass
        connection.execute_wrappers.append(lambda *args: 1 / 0)
        connection.force_debug_cursor = True

    await bench.run(make(sync_run(body)))
    await bench.run(make(sync_run(lambda self: turn_autocommit_off_and_close())))
    assert (await bench.run(make(sync_run(lambda self: User.objects.count()), outputs=ONE))).outputs == {"n": 0}
    assert "left its connection" not in caplog.text


# DEBUG keeps queries


@both
async def test_no_thread_of_a_worker_keeps_the_queries_of_a_run(bench, settings, monkeypatch, flavour):
    settings.DEBUG = True
    kept = []
    usual = connections.__class__.__getitem__

    def getitem(handler, alias):
        found = usual(handler, alias)
        kept.append(found)
        return found

    monkeypatch.setattr(connections.__class__, "__getitem__", getitem)

    async def arun(self):
        return await User.objects.acount() + await asyncio.to_thread(User.objects.count)

    run = sync_run(lambda self: User.objects.count()) if flavour is sync_run else arun
    await bench.run(make(run, outputs=ONE))
    own = connections["default"]
    threads = {id(found): found for found in kept if found is not own and not _is_of_the_tests(found)}
    assert len(threads) >= 2, "of the task, and of the ledger"
    await until(lambda: not any(found.queries_log for found in threads.values()))


def _is_of_the_tests(found):
    """The thread of the async ORM that the test itself uses."""
    return found._thread_ident == async_to_sync_thread.ident


class async_to_sync_thread:  # noqa: N801 - a name for a number
    ident = None


@pytest.fixture(autouse=True)
async def _know_the_tests_own_thread():
    async_to_sync_thread.ident = await sync_to_async(threading.get_ident)()


# What would end the loop


async def leave(error):
    raise error


async def leave_later(error):
    await asyncio.sleep(0)
    raise error


async def gathered(error):
    await asyncio.gather(leave(error), asyncio.sleep(3600))


async def gathered_with_exceptions(error):
    await asyncio.gather(leave_later(error), return_exceptions=True)


async def grouped(error):
    async with asyncio.TaskGroup() as group:
        group.create_task(leave_later(error))
        group.create_task(asyncio.sleep(3600))


async def left_alone(error):
    leaving = asyncio.get_running_loop().create_task(leave(error))
    await asyncio.sleep(3600)
    await leaving


async def nested(error):
    await asyncio.gather(asyncio.gather(gathered(error)))


async def waited_for(error):
    await asyncio.wait_for(leave_later(error), 60)


async def shielded(error):
    await asyncio.shield(leave(error))


async def as_it_is_cancelled(error):
    async def leave_at_the_end():
        try:
            await asyncio.sleep(3600)
        finally:
            raise error

    leaving = asyncio.ensure_future(leave_at_the_end())
    await asyncio.sleep(0)
    leaving.cancel()
    await leaving


CHILDREN = [
    gathered,
    gathered_with_exceptions,
    grouped,
    left_alone,
    nested,
    waited_for,
    shielded,
    as_it_is_cancelled,
]


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("no"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child.__name__)
async def test_what_an_async_child_of_a_run_raises_ends_that_run_alone(bench, child, error):
    going_on = asyncio.Event()

    async def neighbour(self):
        await going_on.wait()
        return 3

    async def run(self):
        await child(error)

    other, executing = await bench.start(make(neighbour, outputs=ONE))
    await until(lambda: (other.uuid, 1) in bench.executor.attempts)
    async with asyncio.timeout(20):
        info = await bench.run(make(run))
    assert (info.status, info.error["code"]) == ("failed", "exception")
    assert type(error).__name__ in info.traceback
    going_on.set()
    await executing
    await other.arefresh_from_db()
    assert other.outputs == {"n": 3}


async def test_children_of_a_run_are_otherwise_as_they_are(bench):
    async def child(n):
        await asyncio.sleep(0)
        return n

    async def run(self):
        cancelled = asyncio.ensure_future(child(1))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(ZeroDivisionError):
            await asyncio.ensure_future(leave(ZeroDivisionError()))
        named = asyncio.create_task(child(2), name="two")
        assert (named.get_name(), "child" in repr(named)) == ("two", True)
        return await named

    assert (await bench.run(make(run, outputs=ONE))).outputs == {"n": 2}


def exits(*args, **kwargs):
    sys.exit(0)


class Exits(IntParameter):
    to_python = to_json = exits


@both
@pytest.mark.parametrize(
    "attributes",
    [
        {"__init__": exits},
        {"__init__": lambda self: (_ for _ in ()).throw(asyncio.CancelledError)},
        {"inputs": {"n": Exits(default=1)}},
        {"outputs": {"n": Exits()}},
    ],
    ids=["init", "init-cancelled", "inputs", "outputs"],
)
async def test_nothing_passes_the_boundary_of_a_run(bench, flavour, attributes):
    async with asyncio.timeout(20):
        info = await bench.run(make(flavour(lambda self, **inputs: 1), **attributes))
    assert (info.status, info.error["code"]) == ("failed", "exception")


def test_a_worker_goes_on_after_a_callback_that_would_end_its_loop(caplog):
    def raiser(error):
        raise error

    ended = []

    async def main():
        loop = asyncio.get_running_loop()
        surroundings = contexts.RunContext("the-run", contexts.contextvars.copy_context())
        surroundings.on_exit = ended.append
        for error in (SystemExit(0), KeyboardInterrupt()):
            loop.call_soon(raiser, error, context=surroundings.context)
            loop.call_later(0.001, raiser, error, context=surroundings.context)
            await asyncio.sleep(0.01)
        return True

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            assert complete(loop, loop.create_task(main())) is True
    finally:
        signal.signal(signal.SIGINT, before)
    assert [type(error) for error in ended] == [SystemExit, SystemExit, KeyboardInterrupt, KeyboardInterrupt]
    assert "although a callback raised SystemExit(0) (in run the-run)" in caplog.text


# Waiting for one another


@both
async def test_runs_that_wait_for_one_another_are_told_of(bench, caplog, monkeypatch, flavour):
    monkeypatch.setattr(contexts, "LONG_WAIT", 0.05)
    monkeypatch.setattr("taskapi.models.LAST_LOOK", 0.02)
    child = await TaskInfo.objects.acreate(task="child")

    async def arun(self):
        return (await (await TaskInfo.objects.aget(pk=child.pk)).aresult(timeout=60))["n"]

    def run(self):
        return TaskInfo.objects.get(pk=child.pk).result(timeout=60)["n"]

    info, executing = await bench.start(make(run if flavour is sync_run else arun, outputs=ONE))
    await until(lambda: "wait for the result of another run" in caplog.text)
    assert str(child.uuid) in caplog.text
    assert "--concurrency" in caplog.text
    await TaskInfo.objects.filter(pk=child.pk).aupdate(status="succeeded", outputs={"n": 3})
    await executing
    await info.arefresh_from_db()
    assert info.outputs == {"n": 3}
    assert caplog.text.count("wait for the result of another run") == 1


@pytest.mark.parametrize("fields", [{"status": "running"}, {"queue": "another"}])
async def test_a_run_that_waits_for_one_that_can_go_on_is_nothing_to_tell_of(bench, caplog, monkeypatch, fields):
    monkeypatch.setattr(contexts, "LONG_WAIT", 0.0)
    monkeypatch.setattr("taskapi.models.LAST_LOOK", 0.02)
    child = await TaskInfo.objects.acreate(task="child", **fields)
    looks = []
    usual = bench.executor._look_at_waits
    monkeypatch.setattr(bench.executor, "_look_at_waits", lambda: looks.append(usual()))

    async def run(self):
        await (await TaskInfo.objects.aget(pk=child.pk)).aresult(timeout=60)

    _, executing = await bench.start(make(run))
    await until(lambda: len(looks) > 3)
    await TaskInfo.objects.filter(pk=child.pk).aupdate(status="succeeded")
    await executing
    assert "wait for the result" not in caplog.text
