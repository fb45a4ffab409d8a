"""One run, from its row to its outcome: on a real event loop, with a real database and Channels' own layer."""

import asyncio
import gc
import json
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partialmethod, wraps

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone

from taskapi import protocol, runs
from taskapi.backends import get_backend
from taskapi.events import channel_layer
from taskapi.exceptions import Interrupted, TaskError, UnknownRun
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import BooleanParameter, DictParameter, FloatParameter, IntParameter, StringParameter
from taskapi.protocol import first_seq, reports
from taskapi.tasks import Task
from taskapi.tasks.progress import Speaker
from taskapi.workers.call import Interruption
from taskapi.workers.executor import Executor
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory_layer", "queue")]


# Tasks of the tests. What a body does, it does in a sync `run` and in an async one.


def sync_run(body):
    def run(self, **inputs):
        return body(self, **inputs)

    return run


def async_run(body):
    async def run(self, **inputs):
        return body(self, **inputs)

    return run


both = pytest.mark.parametrize("flavour", [sync_run, async_run], ids=["sync", "async"])


def make(run, **attributes):
    return type("Made", (Task,), {"name": "made", "run": run, **attributes})


def raiser(error):
    def body(self):
        raise error

    return body


class Listener:
    """Follows a run as a server process does, and keeps what it hears."""

    async def follow(self, info):
        self.layer = channel_layer.get_layer()
        self.channel = await self.layer.new_channel()
        await self.layer.group_add(channel_layer.group(info.uuid), self.channel)
        return self

    def reports(self):
        """What has been published so far."""
        queue = self.layer.channels.get(self.channel)  # made with the first message
        return [channel_layer.read(queue.get_nowait()[1])[1] for _ in range(queue.qsize())] if queue else []

    def events(self):
        return [json.loads(event.text) for report in self.reports() for event in report.events]


class Bench:
    """An executor, and what became of the runs that it was given."""

    def __init__(self, settings, concurrency=4):
        self.settings = settings
        self.executor = Executor(concurrency)

    async def start(self, task, inputs=None, **fields):
        """A run of the task, and its execution, under way."""
        self.settings.TASK_API_BACKGROUND_TASKS = [task]
        info = await TaskInfo.objects.acreate(task=task.name, inputs=inputs or {}, **fields)
        self.listener = await Listener().follow(info)
        return info, asyncio.ensure_future(self.executor.execute(info.uuid))

    async def run(self, task, inputs=None, **fields):
        """The run as it ended; its events are the listener's."""
        info, executing = await self.start(task, inputs, **fields)
        await executing
        await info.arefresh_from_db()
        return info


@pytest.fixture
async def bench(settings):
    bench = Bench(settings)
    yield bench
    assert not bench.executor.attempts
    await bench.executor.close()


async def messages(info):
    return [message.body async for message in TaskMessage.objects.filter(run=info).order_by("index")]


def kinds(told):
    return [event["type"] for event in told]


# How a run ends: outputs

ONE = {"sum": IntParameter()}
TWO = {"a": IntParameter(), "b": StringParameter(required=False)}


@both
@pytest.mark.parametrize(
    ("outputs", "returned", "recorded"),
    [
        ({}, None, {}),
        ({}, "whatever", {}),
        (ONE, 3, {"sum": 3}),
        (ONE, "3", {"sum": 3}),
        (ONE, {"sum": 3}, {"sum": 3}),
        ({"sum": IntParameter(required=False)}, None, {"sum": None}),
        ({"sum": DictParameter()}, {"a": 1}, {"sum": {"a": 1}}),
        ({"sum": DictParameter()}, {"sum": {"sum": 1}}, {"sum": {"sum": 1}}),
        (TWO, {"b": "x", "a": 1}, {"a": 1, "b": "x"}),
        (TWO, {"a": 1}, {"a": 1}),
    ],
)
async def test_what_run_returns_is_recorded_as_its_outputs(bench, flavour, outputs, returned, recorded):
    info = await bench.run(make(flavour(lambda self: returned), outputs=outputs))
    assert (info.status, info.error, info.traceback) == ("succeeded", None, "")
    assert info.outputs == recorded
    assert list(info.outputs) == list(recorded)


class Sealed(IntParameter):
    error = RuntimeError

    def to_json(self, value):
        raise self.error("sealed")


class Exhausted(Sealed):
    error = StopIteration  # asyncio does not accept it from a thread


@both
async def test_a_task_that_returns_a_value_and_declares_no_outputs_is_logged_once(bench, flavour, caplog):
    task = make(flavour(lambda self: {"sum": 3}))
    first, second = [await bench.run(task) for _ in range(2)]
    assert (first.outputs, second.outputs) == ({}, {})
    (line,) = [record.getMessage() for record in caplog.records if "`outputs`" in record.getMessage()]
    assert line == (
        f"The `run` of task made returned a dict in run {first.uuid}, but the task has no `outputs`: the value is "
        "dropped. Declare it, as in `outputs = {'result': JSONParameter()}`, or return nothing."
    )


@both
@pytest.mark.parametrize(("outputs", "returned"), [({}, None), (ONE, 3)])
async def test_a_task_whose_value_has_a_place_is_not_logged(bench, flavour, caplog, outputs, returned):
    await bench.run(make(flavour(lambda self: returned), outputs=outputs))
    assert "`outputs`" not in caplog.text


@both
@pytest.mark.parametrize(
    ("outputs", "returned", "sentence"),
    [
        (ONE, "three", "sum: A valid integer is required."),
        (ONE, None, "sum: This field may not be null."),
        ({"x": FloatParameter()}, float("nan"), "x: A valid number is required."),
        (
            ONE,
            2**53 + 1,
            "sum: 9007199254740993 is past 2**53, so that JavaScript would read another number. "
            "Declare it as IntParameter(as_string=True), or return it as a string.",
        ),
        (TWO, {}, "a: This field is required."),
        (TWO, {"a": 1, "c": 2}, "c: Unknown name 'c'. Expected: a, b."),
        (TWO, 5, "Expected an object with the names: a, b. Got int."),
        (TWO, {"a": "x", "b": 5j}, "a: A valid integer is required.; b: Not a valid string."),
    ],
)
async def test_outputs_that_are_not_what_the_task_declares_fail_the_run(bench, flavour, outputs, returned, sentence):
    info = await bench.run(make(flavour(lambda self: returned), outputs=outputs))
    assert (info.status, info.outputs) == ("failed", None)
    assert info.error == {"code": "invalid_outputs", "message": f"The task returned invalid outputs. {sentence}"}


@both
@pytest.mark.parametrize("parameter", [Sealed, Exhausted])
async def test_an_output_that_cannot_be_converted_fails_the_run(bench, flavour, parameter):
    info = await bench.run(make(flavour(lambda self: 1), outputs={"a": parameter()}))
    assert info.error == {"code": "exception", "message": "The task failed."}
    assert "sealed" in info.traceback


# How a run ends: errors


@both
async def test_a_task_error_is_for_the_caller(bench, flavour):
    info = await bench.run(make(flavour(raiser(TaskError("No such file.")))))
    assert (info.status, info.outputs, info.traceback) == ("failed", None, "")
    assert info.error == {"code": "task_error", "message": "No such file."}


@both
@pytest.mark.parametrize(
    ("debug", "message"), [(False, "The task failed."), (True, "RuntimeError: the password is swordfish")]
)
async def test_an_exception_is_for_staff_unless_debug_is_on(bench, caplog, flavour, debug, message):
    bench.settings.DEBUG = debug
    info = await bench.run(make(flavour(raiser(RuntimeError("the password is swordfish")))))
    assert info.status == "failed"
    assert info.error == {"code": "exception", "message": message}
    assert info.traceback.startswith("Traceback")
    assert info.traceback.endswith("RuntimeError: the password is swordfish\n")
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == f"Task made failed in run {info.uuid}."
    assert record.exc_info


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no words")


class Sabotage(BaseException):
    pass


@both
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(),
        asyncio.CancelledError(),
        Interrupted(),
        Sabotage(),
        Unprintable(),
        ValueError("\ud83d\0"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_task_raises_ends_its_run_and_nothing_else(bench, settings, flavour, error, debug):
    settings.DEBUG = debug
    info = await bench.run(make(flavour(raiser(error))))
    assert (info.status, info.error["code"]) == ("failed", "exception")
    assert type(error).__name__ in info.traceback
    again = await bench.run(make(flavour(lambda self: 1), outputs=ONE))
    assert again.outputs == {"sum": 1}


class Unmakeable(Task):
    name = "unmakeable"

    def __init__(self):
        raise OSError("no model")

    def run(self):
        pass


@pytest.mark.parametrize("task", [Unmakeable, type("Idle", (Task,), {"name": "idle"})])
async def test_a_task_that_cannot_be_made_or_run_has_failed(bench, task):
    info = await bench.run(task)
    assert (info.status, info.error["code"]) == ("failed", "exception")


async def test_a_task_that_this_worker_does_not_know_is_left_to_others(bench):
    info = await TaskInfo.objects.acreate(task="made")
    await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.attempt) == ("pending", 0)


async def test_a_task_that_nobody_has_known_for_long_has_failed(bench):
    info = await TaskInfo.objects.acreate(
        task="made", renewed=timezone.now() - runs.UNKNOWN_LIMIT - timedelta(seconds=1)
    )
    await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert info.error == {"code": "unknown_task", "message": "No worker knows a task named 'made'."}


@both
@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"a": "x", "b": 1}, "a: A valid integer is required."),
        ({"a": 1}, "it needs the input 'b'"),
        ({"a": 1, "b": 1, "d": 1, "c": 1}, "it has no input 'c', 'd'"),
        ({"c": 1}, "it has no input 'c'; it needs the input 'a', 'b'"),
    ],
)
async def test_inputs_that_are_none_for_this_declaration_leave_the_run_to_others(
    bench, flavour, caplog, inputs, sentence
):
    caplog.set_level("INFO")
    attempts = int(inputs.get("a") == "x")  # the names are compared before it begins
    called = []
    task = make(
        flavour(lambda self, **inputs: called.append(inputs)),
        inputs={"a": IntParameter(), "b": IntParameter(), "e": IntParameter(required=False)},
        max_attempts=1,
        retry_on=(Exception,),
    )
    info = await bench.run(task, inputs)
    since = info.renewed
    assert (info.status, info.attempt, info.error, info.worker) == ("pending", attempts, None, "")
    assert f"Run {info.uuid} is left to workers of another version: " in caplog.text
    assert sentence in caplog.text
    assert not await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.renewed) == ("pending", since), "it was left since then"
    await TaskInfo.objects.aupdate(renewed=since - runs.UNKNOWN_LIMIT - timedelta(seconds=1))
    await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert called == []
    assert info.error == {"code": "task_error", "message": f"The inputs no longer fit the task: {sentence}"}


@both
async def test_a_run_that_was_left_has_all_of_its_attempts(bench, flavour):
    body = flavour(lambda self, **inputs: "done")
    outputs = {"said": StringParameter()}
    info = await bench.run(make(body, inputs={"a": IntParameter()}, outputs=outputs), {"a": "x"}, max_attempts=1)
    bench.settings.TASK_API_BACKGROUND_TASKS = [make(body, inputs={"a": StringParameter()}, outputs=outputs)]
    assert await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.outputs) == ("succeeded", {"said": "done"})


# What a task is given


@both
async def test_inputs_are_python_values_with_the_defaults(bench, flavour):
    given = []
    task = make(
        flavour(lambda self, **inputs: given.append(inputs)),
        inputs={"a": IntParameter(), "b": BooleanParameter(default=True), "c": IntParameter(required=False)},
    )
    await bench.run(task, {"a": "1"})
    assert given == [{"a": 1, "b": True}]


@both
async def test_a_task_knows_its_run_and_its_user(bench, flavour):
    ann = await User.objects.acreate(username="ann")
    seen = []
    body = lambda self: seen.append((self.info.uuid, self.info.user.username, self.info.attempt, self.info.status))  # noqa: E731
    info = await bench.run(make(flavour(body)), user=ann)
    assert seen == [(info.uuid, "ann", 1, "running")]


@both
async def test_each_run_has_a_task_of_its_own(bench, flavour):
    def body(self):
        self.count = getattr(self, "count", 0) + 1
        return self.count

    task = make(flavour(body), outputs=ONE)
    assert [(await bench.run(task)).outputs for _ in range(2)] == [{"sum": 1}, {"sum": 1}]


async def test_sync_tasks_use_the_orm_and_their_threads_keep_no_connection(bench):
    used = []

    def body(self):
        used.append((threading.current_thread().name, connections[connection.alias]))
        return User.objects.count()

    assert (await bench.run(make(sync_run(body), outputs=ONE))).outputs == {"sum": 0}
    ((thread, handle),) = used
    assert thread.startswith("taskapi-task")
    assert handle.connection is None


async def test_async_tasks_run_on_the_executors_loop_and_use_the_async_orm(bench):
    async def run(self):
        assert asyncio.get_running_loop() is bench.executor._loop
        return await User.objects.acount()

    assert (await bench.run(make(run, outputs=ONE))).outputs == {"sum": 0}


async def test_sync_tasks_run_at_once(bench):
    together = threading.Barrier(4)
    task = make(sync_run(lambda self: together.wait(10)))
    runs = [await bench.start(task) for _ in range(4)]
    await asyncio.gather(*(executing for _, executing in runs))
    assert await TaskInfo.objects.filter(status="succeeded").acount() == 4


async def test_async_tasks_run_at_once(bench):
    together = asyncio.Barrier(4)

    async def run(self):
        async with asyncio.timeout(10):
            await together.wait()

    runs = [await bench.start(make(run)) for _ in range(4)]
    await asyncio.gather(*(executing for _, executing in runs))
    assert await TaskInfo.objects.filter(status="succeeded").acount() == 4


# Who may not run


@pytest.mark.parametrize("status", ["running", "succeeded", "failed", "cancelled"])
async def test_a_run_that_is_not_pending_is_left_alone(bench, status):
    info = await bench.run(make(raiser(AssertionError)), status=status, seq=7)
    assert (info.status, info.seq, bench.listener.events()) == (status, 7, [])


async def test_a_run_that_was_deleted_before_it_began_is_nobodys(bench):
    info = await TaskInfo.objects.acreate(task="made")
    await TaskInfo.objects.all().adelete()
    with pytest.raises(UnknownRun):
        await bench.executor.execute(info.uuid)


# What followers hear


def talk(self):
    self.set_target(2)
    self.add_message("one")
    self.inc_progress()
    self.add_message({"two": 2})
    self.set_progress(2)
    return 3


@both
async def test_events_tell_the_run_from_its_start_to_its_end(bench, flavour):
    info = await bench.run(make(flavour(talk), outputs=ONE))
    told = bench.listener.events()
    assert kinds(told)[0] == "status"
    assert told[0]["status"] == "running"
    assert [(event["index"], event["message"]) for event in told if event["type"] == "message"] == [
        (0, "one"),
        (1, {"two": 2}),
    ]
    assert [event["target"] for event in told if event["type"] == "target"] == [2]
    assert [event for event in told if event["type"] == "progress"][-1]["progress"] == 2
    assert kinds(told).index("finished") == len(told) - 1
    assert told[-1]["task"] | {"inputs": {}} == protocol.represent(info)
    assert "inputs" not in told[-1]["task"]
    assert told[-1]["status"] == "succeeded"


@both
async def test_events_have_numbers_that_grow_and_their_run_and_attempt(bench, flavour):
    info = await bench.run(make(flavour(talk), outputs=ONE))
    told = bench.listener.events()
    numbers = [event["seq"] for event in told]
    assert numbers == sorted(set(numbers))
    assert first_seq(1) < numbers[0]
    assert numbers[-1] == info.seq < first_seq(2)
    assert {(event["uuid"], event["attempt"]) for event in told} == {(str(info.uuid), 1)}


@both
async def test_reports_say_what_was_before_them(bench, flavour):
    await bench.run(make(flavour(talk), outputs=ONE))
    count, seq = 0, -1
    for report in bench.listener.reports():
        told = [json.loads(event.text) for event in report.events]
        assert report.since == seq < report.seq
        seq = report.seq
        assert report.known == count + kinds(told).count("message")
        assert report.finished == ("finished" in kinds(told))
        count = report.known
    assert count == 2


@both
async def test_the_first_report_of_a_later_attempt_shows_a_gap_to_whoever_knows_the_earlier_one_alone(bench, flavour):
    """Its last report may have been lost; the row has it."""
    await bench.run(make(flavour(talk), outputs=ONE), attempt=1, seq=first_seq(1) + 9)
    first, *_ = bench.listener.reports()
    assert first.since > first_seq(1) + 9


@both
async def test_the_row_has_what_was_said(bench, flavour):
    info = await bench.run(make(flavour(talk), outputs=ONE))
    assert (info.target, info.progress, info.message_count) == (2, 2, 2)
    rows = [row async for row in info.log.order_by("index")]
    assert [(row.index, row.body, row.attempt) for row in rows] == [(0, "one", 1), (1, {"two": 2}, 1)]
    assert [row.seq for row in rows] == [
        event["seq"] for event in bench.listener.events() if event["type"] == "message"
    ]


@both
async def test_a_task_that_says_nothing_has_two_events(bench, flavour):
    await bench.run(make(flavour(lambda self: 1), outputs=ONE))
    assert kinds(bench.listener.events()) == ["status", "finished"]


async def test_a_sync_loop_is_tracked(bench):
    info = await bench.run(make(sync_run(lambda self: sum(self.track([1, 2, 3]))), outputs=ONE))
    assert (info.outputs, info.target, info.progress) == ({"sum": 6}, 3, 3)


async def test_an_async_loop_is_tracked(bench):
    async def numbers():
        for n in range(3):
            yield n

    async def run(self):
        return sum([n async for n in self.track(numbers(), target=3)])

    info = await bench.run(make(run, outputs=ONE))
    assert (info.outputs, info.target, info.progress) == ({"sum": 3}, 3, 3)


# Coalescing


async def test_progress_is_told_at_once_and_then_once_an_interval_and_its_last_value_with_the_end(bench, settings):
    settings.TASK_API_EVENT_INTERVAL = 60
    going_on = threading.Event()

    def body(self):
        self.set_progress(1)
        assert going_on.wait(10)
        for _ in range(10_000):
            self.inc_progress()

    _, executing = await bench.start(make(sync_run(body)))
    told = await until(lambda: [event for event in bench.listener.events() if event["type"] == "progress"])
    going_on.set()
    await executing
    told += bench.listener.events()
    assert [event["progress"] for event in told if event["type"] == "progress"] == [1, 10_001]


async def test_progress_never_goes_backwards(bench):
    going_on = threading.Event()

    def body(self):
        self.set_progress(5)
        assert going_on.wait(10)
        self.set_progress(3)
        self.add_message("back to 3")

    info, executing = await bench.start(make(sync_run(body)))
    told = await until(lambda: [event for event in bench.listener.events() if event["type"] == "progress"])
    going_on.set()
    await executing
    told += bench.listener.events()
    assert [event["progress"] for event in told if event["type"] == "progress"] == [5]
    assert told[-1]["task"]["progress"] == 5
    await info.arefresh_from_db()
    assert info.progress == 5


async def test_a_target_that_changes_is_told_each_time_and_one_that_does_not_is_not(bench, settings):
    settings.TASK_API_EVENT_INTERVAL = 0.001
    goings_on = [threading.Event() for _ in range(3)]

    def body(self):
        for target, going_on in zip((10, 10, None), goings_on, strict=True):
            self.set_target(target)
            self.inc_progress()
            assert going_on.wait(10)

    _, executing = await bench.start(make(sync_run(body)))
    told = []
    for number, going_on in enumerate(goings_on, 1):
        while not told or told[-1].get("progress") != number:
            told += await until(bench.listener.events)
        going_on.set()
    await executing
    assert [event["target"] for event in told if event["type"] == "target"] == [10, None]
    assert [(event["progress"], event["target"]) for event in told if event["type"] == "progress"] == [
        (1, 10),
        (2, 10),
        (3, None),
    ]


# What is recorded before the end


@asynccontextmanager
async def held(bench, *, body=lambda self: None):
    """A run whose task has said "held" and waits, until the block ends."""
    going_on = threading.Event()

    def run(self):
        body(self)
        self.add_message("held")
        assert going_on.wait(10)
        self.add_message("let go")

    info, executing = await bench.start(make(run))
    try:
        bench.told = []
        while "message" not in kinds(bench.told):
            bench.told += await until(bench.listener.events)
        yield info
    finally:
        going_on.set()
        await executing


async def test_what_is_heard_of_a_message_is_in_the_row_already(bench):
    async with held(bench, body=lambda self: self.set_progress(4)) as info:
        await info.arefresh_from_db()
        assert (info.status, info.message_count, info.progress) == ("running", 1, 4)
        assert await messages(info) == ["held"]
        assert info.seq >= bench.told[-1]["seq"]


async def progress_is(info, progress):
    """Wait until the row says so, whatever the events have said."""
    async with asyncio.timeout(10):
        while info.progress != progress:
            await info.arefresh_from_db()


async def test_progress_is_in_the_row_before_it_is_told(bench):
    going_on = threading.Event()

    def body(self):
        self.set_target(10)
        self.set_progress(4)
        assert going_on.wait(10)

    info, executing = await bench.start(make(sync_run(body)))
    await progress_is(info, 4)
    assert (info.status, info.target) == ("running", 10)
    going_on.set()
    await executing


# Stopping: a task that takes too long


def run_until_interrupted(self):
    while True:
        self.inc_progress()


async def wait_for_ever(self):
    await asyncio.Event().wait()


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_task_that_takes_too_long_is_stopped(bench, run):
    info = await bench.run(make(run, timeout=0.05))
    assert (info.status, info.outputs, info.traceback) == ("failed", None, "")
    assert info.error == {"code": "timeout", "message": "The task took longer than it may."}
    assert kinds(bench.listener.events())[-1] == "finished"


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_task_that_is_stopped_cleans_up(bench, run):
    cleaned = threading.Event()

    def sync_cleaning(self):
        try:
            run(self)
        finally:
            cleaned.set()

    async def async_cleaning(self):
        try:
            await run(self)
        finally:
            cleaned.set()

    await bench.run(make(sync_cleaning if run is run_until_interrupted else async_cleaning, timeout=0.05))
    assert cleaned.is_set()


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_task_that_is_stopped_may_say_something_as_it_cleans_up(bench, run):
    def say(self):
        for word in ("cleaning", "cleaned"):
            self.add_message(word)
            self.inc_progress()
            self.check_cancelled()

    def sync_cleaning(self):
        try:
            run(self)
        finally:
            say(self)

    async def async_cleaning(self):
        try:
            await run(self)
        finally:
            say(self)

    task = make(sync_cleaning if run is run_until_interrupted else async_cleaning, timeout=0.05)
    info = await bench.run(task)
    assert info.error["code"] == "timeout"
    assert await messages(info) == ["cleaning", "cleaned"]


async def test_a_task_that_only_asks_whether_it_has_to_stop_is_stopped(bench):
    def run(self):
        while True:
            self.check_cancelled()

    info = await bench.run(make(run, timeout=0.05))
    assert info.error["code"] == "timeout"


async def test_except_exception_does_not_keep_a_task_from_being_stopped(bench):
    def run(self):
        while True:
            try:
                self.inc_progress()
            except Exception:  # noqa: BLE001 - as users write it
                return

    info = await bench.run(make(run, timeout=0.05))
    assert info.error["code"] == "timeout"


def swallow_interrupted(self):
    try:
        run_until_interrupted(self)
    except Interrupted:
        return 3


async def swallow_cancelled(self):
    try:
        await wait_for_ever(self)
    except asyncio.CancelledError:
        return 3


@pytest.mark.parametrize("run", [swallow_interrupted, swallow_cancelled], ids=["sync", "async"])
async def test_a_task_that_goes_on_all_the_same_ends_as_it_ends(bench, run):
    info = await bench.run(make(run, outputs=ONE, timeout=0.05))
    assert (info.status, info.outputs, info.error) == ("succeeded", {"sum": 3}, None)


@both
async def test_a_task_that_raises_an_error_instead_has_failed_with_that(bench, flavour):
    def body(self):
        try:
            run_until_interrupted(self)
        except Interrupted:
            raise TaskError("Half of it is done.") from None

    if flavour is async_run:

        async def run(self):
            try:
                await wait_for_ever(self)
            except asyncio.CancelledError:
                raise TaskError("Half of it is done.") from None

    info = await bench.run(make(sync_run(body) if flavour is sync_run else run, timeout=0.05))
    assert info.error == {"code": "task_error", "message": "Half of it is done."}


async def test_a_task_that_is_in_time_is_not_stopped(bench):
    async with held(bench):
        (attempt,) = bench.executor.attempts.values()
    await bench.run(make(sync_run(lambda self: 1), timeout=60))
    assert attempt.call.interruption is None


async def test_a_timeout_is_of_no_interest_once_the_task_has_returned(bench):
    async def run(self):
        return 3

    task = make(run, outputs=ONE, timeout=60)
    info = await bench.run(task)
    assert info.status == "succeeded"
    timers = [handle for handle in bench.executor._loop._scheduled if not handle.cancelled()]
    assert [handle for handle in timers if "interrupt" in repr(handle)] == []


# Timeouts: from the task's first line


class Slow(IntParameter):
    """Its conversion waits for the test."""

    gate: threading.Event

    def to_python(self, value):
        assert self.gate.wait(60)
        return super().to_python(value)


@both
async def test_a_timeout_does_not_count_before_the_tasks_first_line(bench, flavour):
    """The thread is busy, or the inputs take long to convert."""
    Slow.gate = threading.Event()

    def body(self, n):
        self.add_message("begun")
        return n

    task = make(flavour(body), inputs={"n": Slow()}, outputs={"n": IntParameter()}, timeout=1)
    info, executing = await bench.start(task, {"n": 1})
    await until(lambda: bench.executor.attempts)
    await asyncio.sleep(1.5)  # longer than it may take
    Slow.gate.set()
    await executing
    await info.arefresh_from_db()
    assert (info.status, info.error) == ("succeeded", None)


# A task that cannot be stopped


WENT_ON = "and did not within 0.5 s"


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (Interruption.TIMEOUT, "its timeout is over"),
        (Interruption.CANCELLED, "it was cancelled"),
        (Interruption.LOST, "its lease was lost"),
        (Interruption.HANDED_BACK, "its worker ends"),
    ],
)
@both
async def test_a_task_that_was_asked_to_stop_and_goes_on_is_told_of_once(bench, caplog, flavour, why, words):
    going_on = threading.Event()

    def run(self):
        going_on.wait(60)

    async def arun(self):
        while not going_on.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    timeout = 0.05 if why is Interruption.TIMEOUT else None
    info, executing = await bench.start(make(run if flavour is sync_run else arun, timeout=timeout))
    attempt = await until(lambda: bench.executor.attempts.get((info.uuid, 1)))
    await until(lambda: attempt.cannot_be_ended)
    if why is not Interruption.TIMEOUT:
        attempt.interrupt(why)
    await until(lambda: WENT_ON in caplog.text)
    (line,) = [record.getMessage() for record in caplog.records if WENT_ON in record.getMessage()]
    going_on.set()
    await executing
    assert str(info.uuid) in line
    assert "'made'" in line
    assert words in line
    assert ("A thread cannot be stopped" in line) == (flavour is sync_run)
    assert "isolation = 'process'" in line
    assert caplog.text.count(WENT_ON) == 1


async def test_a_task_that_blocks_the_loop_past_its_timeout_is_told_of_afterwards(bench, caplog):
    async def run(self):
        time.sleep(0.7)  # noqa: ASYNC251 - as it should not be

    await bench.run(make(run, timeout=0.1))
    assert caplog.text.count(WENT_ON) == 1


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_task_that_stops_is_nothing_to_tell_of(bench, caplog, monkeypatch, run):
    monkeypatch.setattr("taskapi.workers.attempt.NOTICE", 1.5)  # more than a busy machine takes
    info = await bench.run(make(run, timeout=0.05))
    assert info.error["code"] == "timeout"
    await asyncio.sleep(1.7)  # longer than a task may take to stop
    assert "was asked to stop" not in caplog.text


# A `run` that returns its work undone


def wrapped(function):
    """A decorator of a project that was written for sync functions only."""

    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def coroutine_run(self):
    raise AssertionError("nobody awaits it")


def sync_coroutine_run(self):
    return coroutine_run(self)


def generator_run(self):
    raise AssertionError("nobody begins with it")
    yield


async def async_generator_run(self):
    raise AssertionError("nobody begins with it")
    yield


class Awaitable:
    def __await__(self):
        raise AssertionError("nobody awaits it")


async def future_run(self):
    return asyncio.get_running_loop().create_future()


async def coroutine_of_a_coroutine(self):
    return coroutine_run(self)


UNDONE = [
    (wrapped(coroutine_run), "a coroutine"),
    (sync_coroutine_run, "a coroutine"),
    (coroutine_of_a_coroutine, "a coroutine"),
    (generator_run, "a generator"),
    (wrapped(generator_run), "a generator"),
    (lambda self: (1 / 0 for _ in "a"), "a generator"),
    (async_generator_run, "an async generator"),
    (wrapped(async_generator_run), "an async generator"),
    (lambda self: Awaitable(), "an awaitable"),
    (future_run, "a future"),
]


@pytest.mark.parametrize("outputs", [{}, ONE], ids=["no outputs", "outputs"])
@pytest.mark.parametrize(("run", "what"), UNDONE)
async def test_a_run_that_returns_its_work_undone_has_failed(bench, caplog, run, what, outputs):
    info = await bench.run(make(run, outputs=outputs))
    gc.collect()  # a coroutine that was never awaited warns when it is collected
    assert (info.status, info.error["code"]) == ("failed", "invalid_outputs")
    if outputs and run.__name__ == "<lambda>" and "generator" in what:
        return  # it is an output, though no integer
    assert f"`run` returned {what} that was not" in info.error["message"]
    assert f"Task made failed in run {info.uuid}" in caplog.text


def awaiting(function):
    @wraps(function)
    async def wrapper(self):
        return await function(self)

    return wrapper


def consuming(function):
    @wraps(function)
    def wrapper(self):
        return sum(function(self))

    return wrapper


async def three(self):
    return 3


def one_and_two(self):
    yield 1
    yield 2


async def awaited_before(self):
    awaited = asyncio.ensure_future(three(self))
    await awaited
    self.awaited = awaited
    return 3


DONE = [
    awaiting(three),
    awaiting(wrapped(three)),
    async_to_sync(three),
    sync_to_async(lambda self: 3),
    partialmethod(three),
    consuming(one_and_two),
    awaited_before,
]


@pytest.mark.parametrize("run", DONE)
async def test_a_run_whose_work_is_done_under_a_wrapper_succeeds(bench, run):
    assert (await bench.run(make(run, outputs=ONE))).outputs == {"sum": 3}


async def test_what_is_lazy_but_no_work_of_the_task_is_no_concern(bench):
    async def done(self):
        awaited = asyncio.ensure_future(three(self))
        await awaited
        return awaited

    assert (await bench.run(make(done))).status == "succeeded"
    assert (await bench.run(make(sync_run(lambda self: User.objects.all())))).status == "succeeded"


# Stopping: a worker that ends, and one that has lost the run


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_run_that_is_handed_back_is_pending_and_queued_and_taken_up_again(bench, run):
    task = make(run)
    info, executing = await bench.start(task)
    (attempt,) = await until(lambda: list(bench.executor.attempts.values()))
    attempt.interrupt(Interruption.HANDED_BACK)
    await executing
    await info.arefresh_from_db()
    assert (info.status, info.attempt, info.error, info.finished) == ("pending", 1, None, None)
    assert [job.uuid for job in get_backend().jobs] == [info.uuid]
    told = bench.listener.events()
    assert (told[-1]["type"], told[-1]["status"], told[-1]["seq"]) == ("status", "pending", info.seq)

    task.run = lambda self: self.add_message("again")
    await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.attempt) == ("succeeded", 2)
    numbers = [event["seq"] for event in (*told, *bench.listener.events())]
    assert numbers == sorted(set(numbers))


async def test_the_messages_of_a_later_attempt_follow_those_of_the_first(bench):
    def body(self):
        self.add_message(f"attempt {self.info.attempt}")
        if self.info.attempt == 1:
            run_until_interrupted(self)

    info, executing = await bench.start(make(sync_run(body)))
    await until(lambda: "message" in kinds(bench.listener.events()))
    (attempt,) = bench.executor.attempts.values()
    attempt.interrupt(Interruption.HANDED_BACK)
    await executing
    await bench.executor.execute(info.uuid)
    rows = [(row.index, row.attempt, row.body) async for row in info.log.order_by("index")]
    assert rows == [(0, 1, "attempt 1"), (1, 2, "attempt 2")]
    await info.arefresh_from_db()
    assert info.message_count == 2
    assert (info.progress, info.target) == (None, None)  # the first attempt's are gone


async def test_the_first_reason_to_stop_is_the_one_that_counts(bench):
    info, executing = await bench.start(make(wait_for_ever))
    (attempt,) = await until(lambda: list(bench.executor.attempts.values()))
    attempt.interrupt(Interruption.TIMEOUT)
    attempt.interrupt(Interruption.HANDED_BACK)
    await executing
    await info.arefresh_from_db()
    assert info.error["code"] == "timeout"


@pytest.mark.parametrize("soon", [lambda stop: stop(), lambda stop: asyncio.get_running_loop().call_soon(stop)])
async def test_an_async_task_that_is_stopped_before_it_began_does_not_begin(bench, soon):
    async def run(self):
        raise AssertionError("it began")

    def stop_me(self):
        (attempt,) = bench.executor.attempts.values()
        soon(lambda: attempt.interrupt(Interruption.HANDED_BACK))

    info = await bench.run(make(run, __init__=stop_me))
    assert (info.status, info.error) == ("pending", None)


async def test_a_task_that_does_not_notice_is_abandoned_and_its_end_goes_nowhere(bench):
    async with held(bench) as info:
        (attempt,) = bench.executor.attempts.values()
        attempt.interrupt(Interruption.HANDED_BACK)
        await attempt.abandon()
        await info.arefresh_from_db()
        assert (info.status, info.attempt) == ("pending", 1)
    await info.arefresh_from_db()
    assert info.status == "pending"
    assert await messages(info) == ["held"]


async def test_a_zombie_writes_nothing_and_stops(bench):
    """Another worker has taken the run up: what the first attempt still says is dropped."""
    async with held(bench) as info:
        await TaskInfo.objects.aupdate(attempt=2)
    await info.arefresh_from_db()
    assert (info.status, info.attempt, info.message_count) == ("running", 2, 1)
    assert await messages(info) == ["held"]
    assert bench.listener.events() == []


async def test_a_zombie_that_reports_is_told_to_stop(bench):
    info, executing = await bench.start(make(run_until_interrupted))
    await until(lambda: "progress" in kinds(bench.listener.events()))
    await TaskInfo.objects.aupdate(attempt=2, progress=None)
    async with asyncio.timeout(10):
        await executing
    await info.arefresh_from_db()
    assert (info.status, info.attempt, info.progress) == ("running", 2, None)


async def test_a_zombie_that_looks_at_its_run_does_not_take_it_over(bench):
    """It may refresh its `info`, to see whether it is to stop: that is a copy of its own."""

    def body(self):
        TaskInfo.objects.update(attempt=2)
        self.info.refresh_from_db()
        self.add_message("from the grave")

    info = await bench.run(make(sync_run(body)))
    assert (info.status, info.attempt, info.message_count) == ("running", 2, 0)
    assert await messages(info) == []


@both
async def test_what_a_task_does_to_its_info_is_its_own_business(bench, flavour):
    def body(self):
        self.info.message_count = 7
        self.info.attempt = self.info.seq = self.info.pk = 0
        self.info.status = "failed"
        self.add_message("hi")

    info = await bench.run(make(flavour(body)))
    assert (info.status, info.attempt) == ("succeeded", 1)
    assert await messages(info) == ["hi"]


async def test_an_earlier_attempt_that_ends_late_leaves_the_later_one_its_place(bench, monkeypatch):
    """A run that this worker lost, and took up again: its first attempt is still there."""
    async with held(bench) as info:
        (first,) = bench.executor.attempts.values()
        await first.abandon()
        bench.settings.TASK_API_BACKGROUND_TASKS = [make(wait_for_ever)]
        again = asyncio.ensure_future(bench.executor.execute(info.uuid))
        await until(lambda: (info.uuid, 2) in bench.executor.attempts)
    (second,) = bench.executor.attempts.values()
    assert second.info.attempt == 2
    second.interrupt(Interruption.CANCELLED)
    await again
    await info.arefresh_from_db()
    assert (info.status, info.attempt) == ("cancelled", 2)


async def test_a_run_that_is_deleted_while_it_runs_ends_without_a_word(bench, caplog):
    gate = threading.Event()
    info, executing = await bench.start(make(sync_run(lambda self: gate.wait(20) and TaskInfo.objects.all().delete())))
    await until(lambda: kinds(bench.listener.events()) == ["status"])
    gate.set()
    await executing
    assert f"Run {info.uuid} is no longer held by attempt 1" in caplog.text
    assert "Traceback" not in caplog.text
    assert bench.listener.events() == []


@pytest.mark.parametrize("run", [run_until_interrupted, wait_for_ever], ids=["sync", "async"])
async def test_a_run_that_is_cancelled_is_no_failure(bench, run):
    info, executing = await bench.start(make(run, retry_on=(BaseException,)))
    (attempt,) = await until(lambda: list(bench.executor.attempts.values()))
    attempt.interrupt(Interruption.CANCELLED)
    await executing
    await info.arefresh_from_db()
    assert (info.status, info.error, info.outputs, info.traceback) == ("cancelled", None, None, "")
    assert bench.listener.events()[-1]["status"] == "cancelled"


# Trying again


class Flaky(Task):
    """Fails in its first attempts, as often as a test says."""

    name = "flaky"
    inputs = {"failures": IntParameter()}
    outputs = {"attempt": IntParameter()}
    retry_on = (ConnectionError,)
    retry_delay = 0

    def run(self, failures):
        self.add_message(self.info.attempt)
        if self.info.attempt <= failures:
            raise ConnectionResetError("not now")
        return self.info.attempt


class AsyncFlaky(Flaky):
    name = "async_flaky"

    async def run(self, failures):
        return Flaky.run(self, failures)


@pytest.mark.parametrize("task", [Flaky, AsyncFlaky])
@pytest.mark.parametrize(("failures", "status"), [(0, "succeeded"), (2, "succeeded"), (3, "failed")])
async def test_a_task_is_tried_again_after_what_may_pass(bench, task, failures, status):
    info = await bench.run(task, {"failures": failures})
    while info.status == "pending":
        await bench.executor.execute(info.uuid)
        await info.arefresh_from_db()
    assert (info.status, info.attempt) == (status, min(failures + 1, 3))
    assert await messages(info) == list(range(1, info.attempt + 1))
    if status == "failed":
        assert info.error == {"code": "exception", "message": "The task failed."}
        assert "not now" in info.traceback


async def test_a_task_is_not_tried_again_after_what_will_not_pass(bench):
    info = await bench.run(make(raiser(ValueError("never")), retry_on=(ConnectionError,)))
    assert (info.status, info.attempt) == ("failed", 1)


async def test_a_task_error_may_pass_too(bench):
    info = await bench.run(make(raiser(TaskError("not now")), retry_on=(TaskError,)), max_attempts=1)
    assert info.error == {"code": "task_error", "message": "not now"}
    info = await bench.run(make(raiser(TaskError("not now")), retry_on=(TaskError,)))
    assert info.status == "pending"


@pytest.mark.parametrize(("attempt", "delay"), [(0, 100), (1, 200), (2, 400)])
async def test_each_try_waits_twice_as_long_as_the_one_before(bench, attempt, delay):
    task = make(raiser(ValueError("not now")), retry_on=(ValueError,), retry_delay=100)
    before = timezone.now()
    info = await bench.run(task, attempt=attempt, max_attempts=9)
    assert delay <= (info.run_at - before).total_seconds() < delay + 50
    (job,) = get_backend().jobs
    assert (job.uuid, job.run_at) == (info.uuid, info.run_at)


async def test_attempts_that_were_handed_back_make_no_wait_longer_and_take_no_try_away(bench):
    task = make(raiser(ValueError("not now")), retry_on=(ValueError,), retry_delay=100)
    before = timezone.now()
    info = await bench.run(task, attempt=6, handed_back=5, max_attempts=3)
    assert (info.status, info.attempt) == ("pending", 7)
    assert 200 <= (info.run_at - before).total_seconds() < 250


# When something around it is away or broken


async def test_a_layer_that_is_away_does_not_concern_the_run(bench, settings, caplog):
    settings.CHANNEL_LAYERS = {}  # the default layer, at an address where nothing listens
    info = await TaskInfo.objects.acreate(task="made")
    settings.TASK_API_BACKGROUND_TASKS = [make(sync_run(talk), outputs=ONE)]
    await bench.executor.execute(info.uuid)
    await info.arefresh_from_db()
    assert (info.status, info.message_count) == ("succeeded", 2)
    assert f"An event of run {info.uuid} could not be published" in caplog.text
    await channel_layer.get_layer().flush()


async def test_reports_that_wait_for_the_layer_are_published_as_one(bench, monkeypatch):
    failing, tries = asyncio.Event(), []

    async def fail_late(group, message):
        tries.append(message)
        await failing.wait()
        raise ConnectionError("away")

    async def run(self):
        for n in range(10):
            self.add_message(n)
            while await TaskMessage.objects.acount() <= n:
                pass

    bench.settings.TASK_API_EVENT_INTERVAL = 0
    monkeypatch.setattr(channel_layer, "PUBLISH_TIMEOUT", 60)
    monkeypatch.setattr(channel_layer.get_layer(), "group_send", fail_late)
    info, executing = await bench.start(make(run))
    await until(lambda: (info.uuid, 1) in bench.executor.attempts)
    attempt = bench.executor.attempts[info.uuid, 1]
    await until(lambda: attempt._unpublished and attempt._unpublished.finished)
    failing.set()
    await executing
    assert len(tries) == 2, "of the status, for which all others waited, and of these as one"


async def test_what_was_said_before_is_not_written_again(bench, monkeypatch):
    writes = []
    usual = runs.record
    monkeypatch.setattr(runs, "record", lambda *args, **said: writes.append(said) or usual(*args, **said))
    collected = threading.Semaphore(0)
    collect = Speaker.collect
    monkeypatch.setattr(Speaker, "collect", lambda self: (collect(self), collected.release())[0])

    def body(self):
        for _ in range(3):
            self.set_progress(5)
            assert collected.acquire(timeout=10)

    info = await bench.run(make(sync_run(body)))
    assert [said["progress"] for said in writes] == [5]
    assert info.progress == 5


async def test_a_run_whose_words_were_lost_does_not_succeed(bench, monkeypatch, caplog):
    def broken(*args):
        raise ZeroDivisionError("no event")

    monkeypatch.setattr(reports, "progress_event", broken)
    going_on = threading.Event()

    def body(self):
        self.set_progress(1)
        assert going_on.wait(10)

    info, executing = await bench.start(make(sync_run(body)))
    (attempt,) = await until(lambda: list(bench.executor.attempts.values()))
    await until(lambda: attempt._broken)
    monkeypatch.undo()
    going_on.set()
    await executing
    await info.arefresh_from_db()
    assert (info.status, info.error["code"]) == ("failed", "exception")
    assert "no event" in info.traceback


async def test_an_outcome_that_cannot_be_recorded_is_a_failure(bench, monkeypatch):
    monkeypatch.setattr(
        "taskapi.workers.call.TaskCall._succeed", lambda *args: runs.Outcome("succeeded", {1: object()})
    )
    info = await bench.run(make(sync_run(lambda self: 1)))
    assert (info.status, info.error["code"]) == ("failed", "exception")
    assert kinds(bench.listener.events())[-1] == "finished"


# Closing


async def test_an_executor_that_is_closed_ends_its_threads(settings):
    bench = Bench(settings)
    await bench.run(make(sync_run(lambda self: 1)))
    await bench.executor.close()
    ours = ("taskapi-task_", "taskapi-ledger")  # not those of runs of earlier tests, "taskapi-task-own_0" say
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith(ours)])
