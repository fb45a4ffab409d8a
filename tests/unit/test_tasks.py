"""A task as a developer writes it: how it is started, described, and tested without a worker."""

from datetime import timedelta
from inspect import signature

import pytest
from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import AppRegistryNotReady
from django.utils import timezone

from taskapi import runs
from taskapi.exceptions import IdempotencyConflict, Interrupted, InvalidInputs
from taskapi.models import TaskInfo
from taskapi.params import ListParameter, NumberParameter, StringParameter
from taskapi.tasks import StartOptions, Task
from taskapi.tasks.progress import Speaker
from tests.support.backends import Job


class Sum(Task):
    """Add numbers.

    All of them.
    """

    name = "sum"
    inputs = {"numbers": ListParameter(NumberParameter()), "note": StringParameter(required=False)}
    outputs = {"sum": NumberParameter(), "note": StringParameter(required=False)}

    def run(self, numbers, note=None):
        self.set_target(len(numbers))
        for _ in self.track(numbers):
            self.add_message("hi")
        self.set_progress(99)
        return sum(numbers)


class Listener:
    """A task, and a speaker from which the test collects what the task says."""

    def __init__(self):
        self.task = Sum()
        self.speaker = self.task._speaker = Speaker(None, None, wake=lambda: None)

    def heard(self):
        return tuple(self.speaker.collect())


@pytest.fixture
def listener():
    return Listener()


# Starting


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("start", [Sum.start, Sum().start], ids=["class", "instance"])
def test_a_task_is_started_by_its_class_or_by_an_instance(queue, start):
    ann = User.objects.create(username="ann")
    info = start({"numbers": ["1", 2]}, user=ann)
    assert isinstance(info, TaskInfo)
    assert (info.task, info.inputs, info.user) == ("sum", {"numbers": [1, 2]}, ann)
    assert queue.jobs == [Job(info.uuid, "default")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("start", [Sum.astart, Sum().astart], ids=["class", "instance"])
async def test_a_task_is_started_from_async_code(queue, start):
    info = await start({"numbers": [1]}, delay=60)
    assert queue.jobs == [Job(info.uuid, "default", info.run_at)]
    assert info.run_at > timezone.now() + timedelta(seconds=50)


@pytest.mark.django_db
def test_a_task_without_inputs_is_started_without_any(queue):
    class Nothing(Task):
        name = "nothing"

    assert Nothing.start().inputs == {}
    assert Nothing.start(None).inputs == {}


@pytest.mark.django_db
def test_what_start_refuses(queue):
    with pytest.raises(InvalidInputs) as caught:
        Sum.start({"numbers": ["one"]})
    assert list(caught.value.detail) == ["numbers"]
    with pytest.raises(InvalidInputs):
        Sum.start()
    Sum.start({"numbers": []}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        Sum.start({"numbers": [1]}, idempotency_key="k")


@pytest.mark.django_db
def test_a_run_may_be_started_at_a_moment_and_under_a_key(queue):
    moment = timezone.now() + timedelta(hours=1)
    info = Sum.start({"numbers": []}, run_at=moment, idempotency_key="k")
    assert info.run_at == moment
    assert Sum.start({"numbers": []}, idempotency_key="k") == info


def test_the_keywords_of_every_start_are_typed():
    """With these types, mypy finds a wrong name in a project."""
    for function, options in ((Task.start, StartOptions), (runs.draft, runs.DraftOptions)):
        parameters = signature(function).parameters.values()
        assert options.__optional_keys__ == {given.name for given in parameters if given.kind is given.KEYWORD_ONLY}
    assert Task.astart.__annotations__["options"] == "Unpack[StartOptions]"
    assert runs.start.__annotations__["options"] == "Unpack[StartOptions]"
    assert runs.submit.__annotations__["options"] == "Unpack[DraftOptions]"


def test_nothing_is_started_before_django_has_loaded_the_apps(monkeypatch):
    info = TaskInfo()
    monkeypatch.setattr(apps, "models_ready", False)
    for start in (Sum.start, info.cancel, info.retry):
        with pytest.raises(AppRegistryNotReady, match="once Django has loaded the app 'taskapi'"):
            start()


# Reporting


def test_a_run_that_nobody_listens_to_runs():
    """As in a project's own unit tests: `run` called like any method."""
    for _ in range(3):
        assert Sum().run(numbers=[1, 2]) == 3


def test_what_nobody_listens_to_is_not_kept():
    Sum().run(numbers=[1])
    assert Task._speaker.collect().messages == []


def test_each_method_says_what_it_is_named_for(listener):
    task = listener.task
    task.set_target(10)
    task.set_progress(4)
    task.inc_progress()
    task.inc_progress(2)
    task.add_message({"a": 1})
    assert listener.heard() == (10, 7, [{"a": 1}])


def test_checking_for_a_cancel_raises_after_one_only(listener):
    listener.task.check_cancelled()
    listener.speaker.interrupt()
    with pytest.raises(Interrupted):
        listener.task.check_cancelled()


# Tracking


async def letters(count=3):
    for letter in "abc"[:count]:
        yield letter


class Letters:
    """An async iterable that knows its length."""

    def __len__(self):
        return 3

    def __aiter__(self):
        return letters()


def test_tracking_advances_after_each_item(listener):
    items = listener.task.track(["a", "b", "c"])
    assert [(item, listener.heard()) for item in items] == [("a", (3, None, [])), ("b", (3, 1, [])), ("c", (3, 2, []))]
    assert listener.heard() == (3, 3, [])


async def test_tracking_an_async_iterable_advances_after_each_item(listener):
    items = listener.task.track(Letters())
    heard = [(item, listener.heard()) async for item in items]
    assert heard == [("a", (3, None, [])), ("b", (3, 1, [])), ("c", (3, 2, []))]
    assert listener.heard() == (3, 3, [])


def test_what_has_no_length_has_no_target(listener):
    assert list(listener.task.track(iter("ab"))) == ["a", "b"]
    assert listener.heard() == (None, 2, [])


async def test_what_has_no_length_has_no_target_in_async_code(listener):
    assert [item async for item in listener.task.track(letters())] == ["a", "b", "c"]
    assert listener.heard() == (None, 3, [])


@pytest.mark.parametrize("items", ["abc", iter("abc")])
def test_a_target_that_is_given_counts_and_not_the_length(listener, items):
    assert list(listener.task.track(items, target=10)) == ["a", "b", "c"]
    assert listener.heard() == (10, 3, [])


def test_an_item_that_is_broken_off_does_not_count(listener):
    for item in listener.task.track("abc"):
        if item == "b":
            break
    assert listener.heard() == (3, 1, [])


def test_tracking_goes_on_from_the_progress_that_there_is(listener):
    listener.task.set_progress(5)
    list(listener.task.track("ab", target=10))
    assert listener.heard() == (10, 7, [])


# A queryset can be iterated over in both ways, and its length is a query.


@pytest.fixture
def names(django_user_model):
    for name in "ab":
        django_user_model.objects.create(username=name)
    return django_user_model.objects.order_by("username").values_list("username", flat=True)


@pytest.mark.django_db
def test_a_queryset_is_tracked_in_a_sync_loop(listener, names):
    assert [(name, listener.heard()) for name in listener.task.track(names)] == [
        ("a", (2, None, [])),
        ("b", (2, 1, [])),
    ]


@pytest.mark.django_db(transaction=True)
async def test_a_queryset_is_tracked_in_an_async_loop(listener, names):
    tracked = [(name, listener.heard()) async for name in listener.task.track(names)]
    assert tracked == [("a", (2, None, [])), ("b", (2, 1, []))]


@pytest.mark.django_db
def test_a_queryset_is_not_counted_where_the_target_is_given(listener, names, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert list(listener.task.track(names, target=5)) == ["a", "b"]
    assert listener.heard() == (5, 2, [])


async def test_a_list_is_tracked_in_an_async_loop(listener):
    assert [item async for item in listener.task.track(["a", "b"])] == ["a", "b"]
    assert listener.heard() == (2, 2, [])


# Describing


def test_a_task_describes_itself():
    description = Sum.describe()
    assert list(description) == ["name", "description", "inputs", "outputs"]
    assert description["name"] == "sum"
    assert description["description"] == "Add numbers.\n\nAll of them."
    assert description["inputs"]["required"] == ["numbers"]
    # what is optional may be left out of the inputs, and is null in the outputs
    assert description["inputs"]["properties"]["note"]["type"] == "string"
    assert description["outputs"]["properties"]["note"]["type"] == ["string", "null"]


def test_a_task_without_a_docstring_has_an_empty_description():
    class Silent(Sum):
        name = "silent"

    assert Silent.describe()["description"] == ""


def test_what_a_task_is_unless_it_says_otherwise():
    assert (Task.name, Task.inputs, Task.outputs, Task.queue) == ("", {}, {}, "default")
    assert (Task.timeout, Task.max_attempts, Task.retry_on, Task.retry_delay) == (None, 3, (), 1.0)
    assert (Task.permission_classes, Task.throttle_classes) == ((), ())


def test_only_what_the_contract_names_is_public():
    public = {name for name in dir(Task) if not name.startswith("_")}
    assert public == {
        "name", "inputs", "outputs", "permission_classes", "throttle_classes", "queue", "timeout", "max_attempts",
        "retry_on", "retry_delay", "retain", "isolation", "set_target", "set_progress", "inc_progress", "add_message",
        "check_cancelled", "track", "validate", "start", "astart", "start_many", "astart_many",
        "describe",
    }  # fmt: skip
    assert iscoroutinefunction(Task.astart)
    assert iscoroutinefunction(Task.astart_many)
