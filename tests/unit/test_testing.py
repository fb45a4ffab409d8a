"""taskapi.testing: a run is executed inside a test, as a worker would execute it."""

import asyncio
import contextvars
import decimal
import threading
import time
from itertools import pairwise
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation, ValidationError
from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone, translation

from taskapi import protocol
from taskapi.engines import immediate
from taskapi.exceptions import Interrupted, InvalidInputs, TaskError, TaskFailed
from taskapi.models import TaskInfo
from taskapi.params import IntParameter, ListParameter, Parameter, StringParameter
from taskapi.tasks import Task
from taskapi.testing import arun_task, run_task, started_runs

NOWHERE = "tests.support.backends.AwayBackend"  # a run that is queued here fails the test: it is logged


class Double(Task):
    name = "double"
    inputs = {"numbers": ListParameter(IntParameter(min_value=0))}
    outputs = {"doubled": ListParameter(IntParameter())}

    def run(self, numbers):
        for number in self.track(numbers):
            self.add_message({"seen": number})
        return [2 * number for number in numbers]


class AsyncDouble(Double):
    name = "async-double"

    async def run(self, numbers):
        async for number in self.track(numbers):
            await asyncio.sleep(0)
            self.add_message({"seen": number})
        return [2 * number for number in numbers]


class Broken(Task):
    name = "broken"

    def run(self):
        raise RuntimeError("the password is swordfish")


class Refusing(Task):
    name = "refusing"

    def run(self):
        self.set_progress(1)
        raise TaskError("There is nothing to do.")


class AddUser(Task):
    """Adds a user, who may be there already."""

    name = "add-user"
    inputs = {"name": StringParameter()}

    def run(self, name):
        self.add_message(f"adding {name}")
        User.objects.create(username="somebody else")
        User.objects.create(username=name)


class AsyncAddUser(AddUser):
    name = "async-add-user"

    async def run(self, name):
        self.add_message(f"adding {name}")
        await User.objects.acreate(username="somebody else")
        await User.objects.acreate(username=name)


class Unsteady(Task):
    name = "unsteady"
    outputs = {"attempt": IntParameter()}
    retry_on = (ConnectionError,)
    retry_delay = 3600.0

    def run(self):
        self.set_progress(self.info.attempt)
        if self.info.attempt < 3:
            raise ConnectionError("nobody there")
        return self.info.attempt


class AsyncUnsteady(Unsteady):
    name = "async-unsteady"

    async def run(self):
        return super().run()


class GivesUp(Task):
    """Cancels itself, and cleans up."""

    name = "gives-up"

    def run(self):
        try:
            self.info.cancel()
            self.set_progress(1)
            self.add_message("never said")
        finally:
            self.add_message("cleaned up")


class AsyncGivesUp(Task):
    name = "async-gives-up"

    async def run(self):
        try:
            await self.info.acancel()
            await asyncio.Event().wait()
        finally:
            self.add_message("cleaned up")


class Slow(Task):
    name = "slow"
    timeout = 0.05

    def run(self):
        while True:
            self.check_cancelled()


class AsyncSlow(Task):
    name = "async-slow"
    timeout = 0.05

    async def run(self):
        await asyncio.Event().wait()


BOTH_DOUBLE = pytest.mark.parametrize("task", [Double, AsyncDouble])


def kinds(run):
    return [event["type"] for event in run.events]


@override_settings(TASK_API_BACKEND=NOWHERE, CHANNEL_LAYERS={})
class TestInATestCase(TestCase):
    """Nothing is committed here, and no other thread sees what is written."""

    def test_a_sync_task(self):
        run = run_task(Double, {"numbers": ["1", 2]})
        self.check(run)

    def test_an_async_task(self):
        run = run_task(AsyncDouble, {"numbers": ["1", 2]})
        self.check(run)

    async def test_a_sync_task_in_an_async_test(self):
        run = await arun_task(Double, {"numbers": [1, 2]})
        await sync_to_async(self.check)(run)

    async def test_an_async_task_in_an_async_test(self):
        run = await arun_task(AsyncDouble, {"numbers": [1, 2]})
        await sync_to_async(self.check)(run)

    def check(self, run):
        assert (run.status, run.outputs, run.error, run.exception) == ("succeeded", {"doubled": [2, 4]}, None, None)
        assert (run.progress, run.target) == (2, 2)
        assert run.messages == [{"seen": 1}, {"seen": 2}]
        row = TaskInfo.objects.get()
        assert row == run.info
        assert protocol.represent(row, row.messages) == protocol.represent(run.info, run.messages)
        assert run.info.result() == {"doubled": [2, 4]}
        assert kinds(run) == ["status", "target", "message", "progress", "message", "progress", "finished"]
        assert [event["progress"] for event in run.events if event["type"] == "progress"] == [1, 2]
        assert [event["index"] for event in run.events if event["type"] == "message"] == [0, 1]
        assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(run.events))
        assert {event["uuid"] for event in run.events} == {str(row.uuid)}
        finished = run.events[-1]
        assert (finished["status"], finished["seq"]) == ("succeeded", row.seq)
        assert finished["task"] == {name: value for name, value in protocol.represent(row).items() if name != "inputs"}

    def test_rows_of_the_test_are_there_in_a_sync_task_and_in_an_async_one(self):
        User.objects.create(username="ann")
        for task in (AddUser, AsyncAddUser):
            with transaction.atomic():
                run = run_task(task, {"name": "bob"})
                assert run.status == "succeeded"
                assert set(User.objects.values_list("username", flat=True)) == {"ann", "bob", "somebody else"}
                transaction.set_rollback(True)

    def test_a_task_that_breaks_the_transaction_fails_and_the_test_goes_on(self):
        User.objects.create(username="ann")
        for task in (AddUser, AsyncAddUser):
            with self.assertLogs("taskapi") as logs:
                run = run_task(task, {"name": "ann"})
            assert (run.status, run.error["code"]) == ("failed", "exception")
            assert isinstance(run.exception, IntegrityError)
            assert run.messages == ["adding ann"]
            assert User.objects.count() == 1, "the other user is undone"
            assert any("left the transaction of its caller broken" in line for line in logs.output)
            assert kinds(run) == ["status", "message", "finished"]

    def test_a_task_that_guards_what_may_fail_keeps_the_rest(self):
        class Guarded(AddUser):
            def run(self, name):
                User.objects.create(username="somebody else")
                try:
                    with transaction.atomic():
                        User.objects.create(username=name)
                except IntegrityError:
                    self.add_message("was there")

        User.objects.create(username="ann")
        run = run_task(Guarded, {"name": "ann"})
        assert (run.status, run.messages, User.objects.count()) == ("succeeded", ["was there"], 2)

    def test_a_task_may_ask_for_a_durable_transaction(self):
        class Durable(Task):
            def run(self):
                with transaction.atomic(durable=True):
                    User.objects.create(username="ann")

        assert run_task(Durable).status == "succeeded"

    def test_what_a_task_starts_goes_to_the_backend_once_it_is_committed(self):
        class Parent(Task):
            def run(self):
                Double.start({"numbers": [1]})

        with override_settings(TASK_API_BACKEND="taskapi.testing.RecordingBackend"):
            assert run_task(Parent).status == "succeeded"
            (child,) = started_runs()
            assert (child.task, child.status, child.inputs) == ("double", "pending", {"numbers": [1]})
        immediately = override_settings(
            TASK_API_BACKEND="taskapi.backends.immediate.ImmediateBackend", TASK_API_BACKGROUND_TASKS=[Double]
        )
        with immediately, self.captureOnCommitCallbacks(execute=True):
            run_task(Parent)
        newest = TaskInfo.objects.first()
        assert newest.result() == {"doubled": [2]}

    def test_nothing_is_left_for_the_commit(self):
        with self.captureOnCommitCallbacks() as callbacks:
            for task in (Double, AsyncDouble):
                run_task(task, {"numbers": [1]})
            for task in (Unsteady, GivesUp, AsyncGivesUp, Slow):
                run_task(task)
        assert callbacks == []


@override_settings(TASK_API_BACKEND=NOWHERE, CHANNEL_LAYERS={})
class TestInATransactionTestCase(TransactionTestCase):
    def test_both_kinds_of_tasks(self):
        with self.assertNoLogs("taskapi", "WARNING"):
            for task in (Double, AsyncDouble):
                assert run_task(task, {"numbers": [1]}).outputs == {"doubled": [2]}

    def test_what_a_task_wrote_before_it_failed_is_there_as_after_a_worker(self):
        User.objects.create(username="ann")
        run = run_task(AddUser, {"name": "ann"})
        assert (run.status, run.messages) == ("failed", ["adding ann"])
        assert User.objects.count() == 2

    def test_a_run_that_cancels_itself_needs_no_commit_and_no_events(self):
        with self.assertNoLogs("taskapi", "WARNING"):
            assert run_task(GivesUp).status == "cancelled"
            assert run_task(AsyncGivesUp).status == "cancelled"

    def test_a_run_that_is_tried_again_is_queued_nowhere(self):
        with self.assertLogs("taskapi") as logs:
            assert run_task(Unsteady).outputs == {"attempt": 3}
        assert [record.getMessage() for record in logs.records if "queue" in record.getMessage()] == []


# Pytest


@pytest.fixture
def project(db, settings):
    settings.TASK_API_BACKEND = NOWHERE


pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize("inputs", [{}, {"numbers": [-1]}, {"numbers": [1], "more": 2}, None])
@BOTH_DOUBLE
def test_invalid_inputs_raise_and_leave_no_row(task, inputs):
    with pytest.raises(InvalidInputs) as refused:
        run_task(task, inputs)
    assert refused.value.detail
    assert not TaskInfo.objects.exists()


def test_validate_is_asked_with_the_user():
    class Picky(Double):
        @classmethod
        def validate(cls, inputs, *, user):
            if user is None:
                raise ValidationError("Log in.")
            return {"numbers": [len(user.username)]}

    with pytest.raises(InvalidInputs) as refused:
        run_task(Picky, {"numbers": [1]})
    assert refused.value.detail == {"non_field_errors": ["Log in."]}
    ann = User.objects.create(username="ann")
    run = run_task(Picky, {"numbers": [1]}, user=ann)
    assert (run.outputs, run.info.user, run.info.inputs) == ({"doubled": [6]}, ann, {"numbers": [3]})


def test_a_task_knows_its_run_and_its_user():
    class Who(Task):
        outputs = {"user": StringParameter(), "uuid": StringParameter(), "status": StringParameter()}

        def run(self):
            return {"user": self.info.user.username, "uuid": str(self.info.uuid), "status": self.info.status}

    run = run_task(Who, user=User.objects.create(username="ann"))
    assert run.outputs == {"user": "ann", "uuid": str(run.info.uuid), "status": "running"}


def test_an_exception_fails_the_run_as_callers_see_it_and_is_at_hand(caplog, settings):
    run = run_task(Broken)
    assert (run.status, run.outputs) == ("failed", None)
    assert run.error == {"code": "exception", "message": "The task failed."}
    assert repr(run.exception) == "RuntimeError('the password is swordfish')"
    assert 'raise RuntimeError("the password is swordfish")' in run.traceback
    assert run.traceback in caplog.text + "\n", "it is logged as in a worker"
    assert repr(run) == (
        "<FinishedRun broken failed: exception: The task failed. (RuntimeError('the password is swordfish'))>"
    )
    assert run.events[-1]["task"]["error"] == run.error
    with pytest.raises(TaskFailed):
        run.info.result()
    settings.DEBUG = True
    assert run_task(Broken).error["message"] == "RuntimeError: the password is swordfish"


def test_a_task_error_is_for_the_caller():
    run = run_task(Refusing)
    assert (run.error, run.progress) == ({"code": "task_error", "message": "There is nothing to do."}, 1)
    assert run.traceback == ""


def test_outputs_are_checked():
    class Wrong(Double):
        def run(self, numbers):
            return ["many"]

    run = run_task(Wrong, {"numbers": []})
    assert (run.status, run.error["code"], run.outputs) == ("failed", "invalid_outputs", None)


def test_inputs_that_fit_only_once_fail_the_run_at_once():
    class Moody(Parameter):
        calls = 0

        def to_python(self, value):
            Moody.calls += 1
            if Moody.calls > 1:
                raise ValidationError("Not again.")
            return value

    class Once(Task):
        inputs = {"value": Moody()}

        def run(self, value):
            raise AssertionError("it is not called")

    run = run_task(Once, {"value": 1})
    assert (run.status, run.error) == (
        "failed",
        {"code": "task_error", "message": "The inputs no longer fit the task: value: Not again."},
    )
    assert run.info.attempt == 1


@pytest.mark.parametrize("task", [Unsteady, AsyncUnsteady])
def test_attempts_follow_at_once(task):
    run = run_task(task)
    assert (run.status, run.outputs, run.info.attempt) == ("succeeded", {"attempt": 3}, 3)
    said = [(event["attempt"], event.get("status") or event.get("progress")) for event in run.events]
    assert said == [
        (1, "running"), (1, 1), (1, "pending"), (2, "running"), (2, 2), (2, "pending"), (3, "running"), (3, 3),
        (3, "succeeded"),
    ]  # fmt: skip
    assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(run.events))


def test_the_last_attempt_fails_the_run():
    class Hopeless(Unsteady):
        max_attempts = 2

    run = run_task(Hopeless)
    assert (run.status, run.info.attempt, run.error["code"]) == ("failed", 2, "exception")
    assert isinstance(run.exception, ConnectionError)


@pytest.mark.parametrize("task", [GivesUp, AsyncGivesUp])
def test_a_run_that_cancels_itself(task):
    run = run_task(task)
    assert (run.status, run.info.cancel_requested, run.error) == ("cancelled", True, None)
    assert run.messages == ["cleaned up"]


def test_a_cancel_from_what_the_task_calls():
    class Calls(Task):
        def run(self):
            self.fetch()
            self.check_cancelled()
            self.add_message("goes on")

        def fetch(self):
            raise NotImplementedError

    with mock.patch.object(Calls, "fetch", side_effect=lambda: TaskInfo.objects.get().cancel()):
        run = run_task(Calls)
    assert (run.status, run.messages) == ("cancelled", [])


def test_a_cancel_that_a_task_does_not_notice_changes_nothing():
    class Deaf(Task):
        def run(self):
            self.info.cancel()

    run = run_task(Deaf)
    assert (run.status, run.info.cancel_requested) == ("succeeded", True)


@pytest.mark.parametrize("task", [Slow, AsyncSlow])
def test_a_timeout(task):
    run = run_task(task)
    assert (run.status, run.error["code"]) == ("failed", "timeout")


def test_a_timeout_that_is_not_noticed_is_logged(caplog):
    class Deaf(Task):
        name = "deaf"
        timeout = 0.01

        def run(self):
            time.sleep(0.02)

    assert run_task(Deaf).status == "succeeded"
    assert "took longer than its timeout and did not notice" in caplog.text


def test_the_row_is_written_while_a_sync_task_runs():
    seen = []

    class Looks(Task):
        def run(self):
            for n in range(1, 4):
                self.set_progress(n)
                self.add_message(n)
                row = TaskInfo.objects.get()
                seen.append((row.status, row.progress, row.messages))

    run_task(Looks)
    assert seen == [("running", 1, [1]), ("running", 2, [1, 2]), ("running", 3, [1, 2, 3])]


def test_many_reports_are_events_all_and_writes_some(monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr(immediate, "WRITTEN_AT_ONCE", 5)

    class Many(Task):
        def run(self):
            for _ in range(10):
                self.inc_progress()
                self.add_message("said")

    with django_assert_max_num_queries(60), override_settings(TASK_API_EVENT_INTERVAL=3600):
        run = run_task(Many)
    assert [event["progress"] for event in run.events if event["type"] == "progress"] == [*range(1, 11)]
    assert (run.progress, run.messages) == (10, ["said"] * 10)


@pytest.mark.parametrize("task", ["double", Double(), TaskInfo])
def test_it_says_that_it_takes_a_class(task):
    with pytest.raises(TypeError, match=r"takes the class of a task, as in run_task\(AddUsers, {…}\); it got "):
        run_task(task, {"numbers": [1]})


def test_a_task_that_wants_a_process_runs_in_the_thread_of_the_test():
    threads = []

    class Alone(Task):
        isolation = "process"

        def run(self):
            threads.append(threading.current_thread())

    assert run_task(Alone).status == "succeeded"
    assert threads == [threading.current_thread()]


def test_progress_never_goes_backwards():
    class Back(Task):
        def run(self):
            for n in (1, 3, 2, 3, 4):
                self.set_progress(n)

    run = run_task(Back)
    assert [event["progress"] for event in run.events if event["type"] == "progress"] == [1, 3, 4]


def test_what_threads_of_a_task_say_arrives():
    class Threads(Task):
        async def run(self):
            self.set_target(20)
            await asyncio.gather(*(asyncio.to_thread(self.inc_progress) for _ in range(20)))
            await asyncio.to_thread(self.add_message, "done")

    run = run_task(Threads)
    assert (run.progress, run.target, run.messages) == (20, 20, ["done"])


def test_a_task_that_cannot_be_made_fails():
    class Unmade(Task):
        def __init__(self):
            raise RuntimeError("not today")

    run = run_task(Unmade)
    assert (run.status, str(run.exception)) == ("failed", "not today")


def test_sys_exit_fails_the_run_as_in_a_worker():
    class Exits(Task):
        def run(self):
            raise SystemExit(3)

    run = run_task(Exits)
    assert (run.status, type(run.exception)) == ("failed", SystemExit)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, pytest.fail.Exception])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_ends_the_test_goes_through_the_task(kind, is_async):
    class Stopped(Task):
        if is_async:

            async def run(self):
                raise kind("stop")
        else:

            def run(self):
                raise kind("stop")

    with pytest.raises(kind):
        run_task(Stopped)
    assert TaskInfo.objects.get().status == "failed"


def test_interrupted_is_as_in_a_worker():
    class Interrupts(Task):
        def run(self):
            raise Interrupted

    assert run_task(Interrupts).status == "failed"


def test_a_task_finds_what_a_worker_has_and_leaves_nothing_behind():
    variable = contextvars.ContextVar("variable", default="untouched")
    seen = []

    class Changes(Task):
        def run(self):
            seen.append((translation.get_language(), timezone.get_current_timezone_name()))
            translation.activate("fr")
            timezone.activate("Europe/Vienna")
            decimal.getcontext().prec = 3
            variable.set("changed")

    class AsyncChanges(Changes):
        async def run(self):
            super().run()

    precision = decimal.getcontext().prec
    with translation.override("de"), timezone.override("Asia/Tokyo"):
        for task in (Changes, AsyncChanges):
            assert run_task(task).status == "succeeded"
            assert translation.get_language() == "de"
            assert timezone.get_current_timezone_name() == "Asia/Tokyo"
    assert seen == [("en-us", "UTC"), ("en-us", "UTC")]
    assert (decimal.getcontext().prec, variable.get()) == (precision, "untouched")


def test_a_task_runs_another_one():
    class Outer(Task):
        outputs = {"sum": IntParameter()}

        def run(self):
            return sum(run_task(task, {"numbers": [1, 2]}).outputs["doubled"][1] for task in (Double, AsyncDouble))

    assert run_task(Outer).outputs == {"sum": 8}


def test_a_run_that_was_deleted_by_its_task_says_so(caplog):
    class Deletes(Task):
        def run(self):
            TaskInfo.objects.all().delete()

    with pytest.raises(TaskInfo.DoesNotExist, match="was deleted"):
        run_task(Deletes)
    assert "is no longer held" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_run_task_on_an_event_loop_names_arun_task():
    with pytest.raises(SynchronousOnlyOperation, match="await arun_task"):
        run_task(Double, {"numbers": []})


@pytest.mark.django_db(transaction=True)
async def test_an_async_task_runs_on_the_loop_of_its_caller():
    loops = []

    class Where(Task):
        async def run(self):
            loops.append(asyncio.get_running_loop())

    assert (await arun_task(Where)).status == "succeeded"
    assert loops == [asyncio.get_running_loop()]


@pytest.mark.django_db(transaction=True)
async def test_a_caller_that_gives_up_ends_the_run():
    waiting = asyncio.Event()

    class Patient(Task):
        async def run(self):
            waiting.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(arun_task(Patient))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    info = await TaskInfo.objects.aget()
    async with asyncio.timeout(20):
        while not info.is_final:
            await info.arefresh_from_db()
    assert info.status == "failed"


# Recording


@pytest.fixture
def recording(project, settings):
    settings.TASK_API_BACKEND = "taskapi.testing.RecordingBackend"


@pytest.mark.usefixtures("recording")
def test_started_runs_are_those_that_were_started():
    ann = User.objects.create(username="ann")
    first = Double.start({"numbers": ["1"]}, user=ann)
    second = AsyncDouble.start({"numbers": [2]}, delay=60)
    run_task(Double, {"numbers": [3]})
    with transaction.atomic():
        Double.start({"numbers": [4]})
        transaction.set_rollback(True)
    assert started_runs() == [first, second]
    assert started_runs(AsyncDouble) == [second]
    (info,) = started_runs(Double)
    assert (info.task, info.inputs, info.user, info.status, info.attempt) == (
        "double",
        {"numbers": [1]},
        ann,
        "pending",
        0,
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("recording")
def test_a_recorded_run_is_not_executed_when_it_is_committed(caplog):
    info = Double.start({"numbers": [1]})
    info.refresh_from_db()
    assert (info.status, started_runs(), caplog.records) == ("pending", [info], [])


def test_a_test_uses_its_own_connection():
    """That of the thread of the test: what it wrote is not committed."""
    threads = []

    class Where(Task):
        def run(self):
            threads.append(connection.connection)

    class AsyncWhere(Task):
        async def run(self):
            await sync_to_async(lambda: threads.append(connection.connection))()

    run_task(Where)
    run_task(AsyncWhere)
    assert threads == [connection.connection, connection.connection]
