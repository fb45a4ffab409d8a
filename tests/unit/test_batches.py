"""Many runs that one call starts: all of them or none, in order."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from taskapi import runs
from taskapi.exceptions import IdempotencyConflict, InvalidInputs
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.protocol.states import Status
from taskapi.runs import batches, queueing
from taskapi.store import rows
from taskapi.tasks import Task
from taskapi.testing import started_runs
from tests.support.backends import ListBackend

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]


class Add(Task):
    name = "add"
    queue = "sums"
    inputs = {"a": IntParameter(), "b": IntParameter(default=2)}
    outputs = {"sum": IntParameter()}

    def run(self, a, b):
        return a + b


class Picky(Add):
    name = "picky"
    limit = 10

    @classmethod
    def validate(cls, inputs, *, user):
        if inputs["a"] > cls.limit:
            raise ValidationError({"a": [f"More than {cls.limit}."]})
        return inputs | {"b": 10 * inputs["a"]}


MANY = [{"a": 1}, {"a": 2, "b": 3}, {"a": "3"}]


def inputs_of(infos):
    return [info.inputs for info in infos]


def test_the_runs_are_in_the_order_of_the_inputs_also_in_the_table():
    infos = Add.start_many(MANY)
    assert inputs_of(infos) == [{"a": 1}, {"a": 2, "b": 3}, {"a": 3}]
    assert list(TaskInfo.objects.order_by("id")) == infos
    assert inputs_of(TaskInfo.objects.order_by("id")) == inputs_of(infos)


def test_each_run_is_as_a_single_start_makes_it():
    ann = User.objects.create(username="ann")
    (info,) = Add.start_many([{"a": 1}], user=ann)
    single = Add.start({"a": 1}, user=ann)
    names = {field.attname for field in TaskInfo._meta.concrete_fields} - {"id", "uuid", "created"}
    for other in (info, TaskInfo.objects.get(pk=info.pk)):
        assert {name: getattr(other, name) for name in names} == {name: getattr(single, name) for name in names}


def test_nothing_to_start_is_an_empty_list(queue):
    assert Add.start_many([]) == []
    assert Add.start_many(iter(()), idempotency_key="key") == []
    assert (TaskInfo.objects.count(), queue.jobs) == (0, [])


def test_an_instance_starts_many_too():
    assert inputs_of(Add().start_many(MANY[:1])) == [{"a": 1}]


@pytest.mark.django_db(transaction=True)
async def test_async_code_starts_many():
    infos = await Add.astart_many(({"a": n} for n in range(3)), user=AnonymousUser())
    assert [info.inputs["a"] for info in infos] == [0, 1, 2]
    assert await TaskInfo.objects.acount() == 3


def test_all_wait_for_the_same_moment(queue, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True), CaptureQueriesContext(connection) as captured:
        infos = Add.start_many([{"a": n} for n in range(100)], delay=timedelta(minutes=1))
    assert {info.run_at for info in infos} == {job.run_at for job in queue.jobs} == {infos[0].run_at}
    assert infos[0].run_at > timezone.now()
    assert len(captured) < 20, "the clock is asked once, not for each run"


def test_a_delay_and_a_moment_are_too_much():
    with pytest.raises(ValueError, match="not both"):
        Add.start_many(MANY, delay=1, run_at=timezone.now())


# All or none


def test_all_that_is_wrong_is_said_by_index_and_nothing_is_started(queue):
    with pytest.raises(InvalidInputs) as refused:
        Add.start_many([{"a": 1}, {"a": "x"}, {"a": 1, "c": 2}, 4])
    assert refused.value.detail == {
        1: {"a": ["A valid integer is required."]},
        2: {"c": ["Unknown input 'c'. Expected: a, b."]},
        3: ["Expected an object with the names: a, b. Got int."],
    }
    assert (TaskInfo.objects.count(), queue.jobs) == (0, [])


def test_validate_is_asked_of_each():
    assert inputs_of(Picky.start_many([{"a": 1}, {"a": 2}])) == [{"a": 1, "b": 10}, {"a": 2, "b": 20}]
    with pytest.raises(InvalidInputs) as refused:
        Picky.start_many([{"a": 11}, {"a": 1}, {"a": 12}])
    assert refused.value.detail == {0: {"a": ["More than 10."]}, 2: {"a": ["More than 10."]}}
    assert TaskInfo.objects.count() == 2


def test_a_row_that_cannot_be_recorded_leaves_none(monkeypatch):
    taken = Add.start({"a": 1})
    monkeypatch.setattr(rows, "INSERTED_TOGETHER", 2)
    drafts = runs.draft_many(Add, [{"a": n} for n in range(5)])
    drafts[4].uuid = taken.uuid
    with pytest.raises(IntegrityError):
        runs.save_many(drafts)
    assert list(TaskInfo.objects.all()) == [taken]


def test_a_database_that_does_not_tell_the_ids_of_many_rows(monkeypatch):
    monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
    infos = Add.start_many(MANY)
    assert list(TaskInfo.objects.order_by("id")) == infos


# The queue


@pytest.mark.django_db(transaction=True)
def test_they_are_queued_in_order_when_they_are_committed(queue):
    with transaction.atomic():
        infos = Add.start_many(MANY)
        assert queue.jobs == []
    assert [(job.uuid, job.queue) for job in queue.jobs] == [(info.uuid, "sums") for info in infos]


@pytest.mark.django_db(transaction=True)
def test_a_backend_that_can_gets_them_in_few_calls(queue, monkeypatch):
    calls = []

    @contextmanager
    def together(self):
        yield
        calls.append(len(queue.jobs))

    monkeypatch.setattr(ListBackend, "together", together)
    monkeypatch.setattr(queueing, "QUEUED_TOGETHER", 2)
    Add.start_many([{"a": n} for n in range(5)])
    assert calls == [2, 4, 5]


@pytest.mark.django_db(transaction=True)
def test_nothing_is_queued_after_a_rollback(queue):
    with transaction.atomic():
        Add.start_many(MANY)
        transaction.set_rollback(True)
    assert (TaskInfo.objects.count(), queue.jobs) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_is_away_loses_nothing(settings, caplog):
    settings.TASK_API_BACKEND = "tests.support.backends.AwayBackend"
    infos = Add.start_many(MANY)
    assert [record.args[0] for record in caplog.records] == [info.uuid for info in infos]
    assert TaskInfo.objects.filter(status=Status.PENDING.value).count() == len(MANY)


@pytest.mark.django_db(transaction=True)
def test_a_backend_that_executes_inline_has_executed_them(settings):
    settings.TASK_API_BACKEND = "taskapi.backends.immediate.ImmediateBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    infos = Add.start_many(MANY, idempotency_key="key")
    assert [info.result(timeout=0)["sum"] for info in infos] == [3, 5, 5]
    again = Add.start_many(MANY, idempotency_key="key")
    assert again == infos
    assert [info.outputs["sum"] for info in again] == [3, 5, 5]


def test_a_backend_that_records_them(settings):
    settings.TASK_API_BACKEND = "taskapi.testing.RecordingBackend"
    infos = Add.start_many(MANY)
    assert started_runs() == started_runs(Add) == infos


# Starting once


def test_the_same_key_gives_the_same_runs_in_the_same_order(queue, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        first = Add.start_many(MANY, idempotency_key="key")
        again = Add.start_many(MANY, idempotency_key="key")
    assert again == first
    assert inputs_of(again) == inputs_of(first)
    assert (TaskInfo.objects.count(), len(queue.jobs)) == (3, 3)
    assert all(not info.get_deferred_fields() for info in again)


@pytest.mark.django_db(transaction=True)
async def test_the_runs_of_an_earlier_call_can_be_waited_for(settings):
    settings.TASK_API_BACKEND = "taskapi.backends.immediate.ImmediateBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    await Add.astart_many(MANY, idempotency_key="key")
    again = await Add.astart_many(MANY, idempotency_key="key")
    assert [(await info.aresult(timeout=0))["sum"] for info in again] == [3, 5, 5]


def test_another_caller_task_or_key_starts_other_runs():
    ann = User.objects.create(username="ann")
    sets = [
        Add.start_many(MANY, idempotency_key="key"),
        Add.start_many(MANY, idempotency_key="other"),
        Add.start_many(MANY, idempotency_key="key", user=ann),
        Picky.start_many(MANY, idempotency_key="key"),
    ]
    assert len({info.uuid for infos in sets for info in infos}) == 12


@pytest.mark.parametrize(
    "other",
    [MANY[:2], [*MANY, {"a": 4}], MANY[::-1], [{"a": 1}, {"a": 2}, {"a": 3}], MANY[1:], [*MANY, *MANY]],
    ids=["shorter", "longer", "reversed", "another", "without the first", "twice"],
)
def test_another_list_under_a_used_key_is_a_conflict(other):
    Add.start_many(MANY, idempotency_key="key")
    with pytest.raises(IdempotencyConflict):
        Add.start_many(other, idempotency_key="key")
    assert TaskInfo.objects.count() == 3


def test_one_start_and_many_are_never_taken_for_each_other():
    Add.start({"a": 1}, idempotency_key="one")
    with pytest.raises(IdempotencyConflict):
        Add.start_many([{"a": 1}], idempotency_key="one")
    Add.start_many([{"a": 1}], idempotency_key="many")
    with pytest.raises(IdempotencyConflict):
        Add.start({"a": 1}, idempotency_key="many")
    assert TaskInfo.objects.count() == 2


@pytest.mark.parametrize("key", ["key\0001", "key1", "key\x001\0", "1"])
def test_a_callers_key_is_not_that_of_a_later_run_of_many(key):
    infos = Add.start_many(MANY, idempotency_key="key")
    assert Add.start({"a": 2, "b": 3}, idempotency_key=key) not in infos


def test_inputs_that_validate_does_not_take_any_more_are_those_of_the_earlier_call(monkeypatch):
    first = Picky.start_many(MANY, idempotency_key="key")
    monkeypatch.setattr(Picky, "limit", 2)
    assert Picky.start_many(MANY, idempotency_key="key") == first
    for refused, key in ((MANY, "other"), ([*MANY, {"a": 4}], "key")):
        with pytest.raises(InvalidInputs):
            Picky.start_many(refused, idempotency_key=key)


def test_runs_that_were_deleted_meanwhile_are_started_again(queue, django_capture_on_commit_callbacks):
    first = Add.start_many(MANY, idempotency_key="key")
    first[1].delete()
    with django_capture_on_commit_callbacks(execute=True):
        again = Add.start_many(MANY, idempotency_key="key")
    assert (again[0], again[2]) == (first[0], first[2])
    assert [job.uuid for job in queue.jobs] == [again[1].uuid]
    assert inputs_of(again) == inputs_of(first)


def test_a_key_inside_a_transaction_that_goes_on():
    first = Add.start_many(MANY, idempotency_key="key")
    with transaction.atomic():
        assert Add.start_many(MANY, idempotency_key="key") == first
        assert Add.start({"a": 5}).pk, "the transaction is not broken"


def test_many_keys_are_looked_up_in_pieces(monkeypatch):
    monkeypatch.setattr(batches, "READ_TOGETHER", 2)
    first = Add.start_many([{"a": n} for n in range(5)], idempotency_key="key")
    assert Add.start_many([{"a": n} for n in range(5)], idempotency_key="key") == first


@pytest.mark.django_db(transaction=True)
def test_a_user_who_was_deleted_is_no_matter_of_the_key(queue):
    ann = User.objects.create(username="ann")
    User.objects.filter(pk=ann.pk).delete()
    with pytest.raises(IntegrityError):
        Add.start_many(MANY, user=ann, idempotency_key="key")
    assert (TaskInfo.objects.count(), queue.jobs) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_calls_at_the_same_time_start_one_set(queue):
    callers = 4
    together = Barrier(callers)

    def start(number):
        together.wait(30)
        try:
            return [info.uuid for info in Add.start_many(MANY, idempotency_key=f"key {number}")]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(callers) as pool:
        for number in range(6):
            answers = list(pool.map(start, [number] * callers))
            assert answers == answers[:1] * callers
    assert TaskInfo.objects.count() == len(queue.jobs) == 6 * len(MANY)
