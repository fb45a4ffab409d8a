"""The life of a run: how it is recorded, queued, taken up, reported and ended."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.utils import timezone

from taskapi import runs, upkeep
from taskapi.exceptions import IdempotencyConflict, InvalidInputs, TaskCancelled, TaskFailed
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import DateTimeParameter, IntParameter, JSONParameter, ListParameter, StringParameter
from taskapi.protocol import first_seq
from taskapi.runs import Outcome
from taskapi.states import ErrorCode, Status
from taskapi.tasks import Task
from tests.support.backends import Job

pytestmark = pytest.mark.django_db


class Add(Task):
    name = "add"
    queue = "sums"
    inputs = {"a": IntParameter(), "b": IntParameter(default=2), "note": StringParameter(required=False)}


class Any(Task):
    name = "any"
    inputs = {"value": JSONParameter(required=False)}


@pytest.fixture
def ann():
    return User.objects.create(username="ann")


@pytest.fixture
def bob():
    return User.objects.create(username="bob")


def submit(task=Add, inputs=None, **options):
    return runs.submit(task, {"a": 1} if inputs is None else inputs, **options)


def begun(**fields):
    """A run that is running, as its attempt knows it."""
    return runs.begin(TaskInfo.objects.create(task="any", **fields).uuid)


def messages(info, *bodies):
    count = info.message_count
    return [
        TaskMessage(run_id=info.pk, index=count + n, attempt=info.attempt, seq=info.seq + n, body=body)
        for n, body in enumerate(bodies)
    ]


def said(**fields):
    return {"seq": first_seq(1) + 10, "target": None, "progress": None, "messages": []} | fields


def row(info):
    return TaskInfo.objects.filter(pk=info.pk).values().get()


DONE = Outcome(Status.SUCCEEDED, {"sum": 3})
HANDED_BACK = Outcome(Status.PENDING)


# Submitting


def test_a_run_is_recorded_with_its_inputs_in_the_form_that_they_are_stored_in(queue, ann):
    info, created = submit(inputs={"a": "1"}, user=ann)
    assert created
    stored = TaskInfo.objects.get()
    assert stored == info
    assert (stored.task, stored.queue, stored.user, stored.status) == ("add", "sums", ann, "pending")
    assert stored.inputs == info.inputs == {"a": 1, "b": 2}


def test_python_values_are_taken_as_well_as_json(queue):
    class At(Task):
        name = "at"
        inputs = {"times": ListParameter(DateTimeParameter())}

    moment = timezone.now().replace(microsecond=0)
    info = submit(At, {"times": (moment,)}).info
    assert info.inputs == {"times": [moment.isoformat().replace("+00:00", "Z")]}


@pytest.mark.parametrize("nobody", [None, AnonymousUser()])
def test_nobodys_run_has_no_user(queue, nobody):
    assert submit(user=nobody).info.user is None


@pytest.mark.parametrize(
    ("inputs", "names"),
    [({}, ["a"]), ({"a": "x"}, ["a"]), ({"a": 1, "c": 3}, ["c"]), ({"a": "x", "b": "y"}, ["a", "b"])],
)
def test_invalid_inputs_are_told_by_name_and_leave_no_row(queue, inputs, names):
    with pytest.raises(InvalidInputs) as caught:
        submit(inputs=inputs, idempotency_key="k")
    assert list(caught.value.detail) == names
    assert all(isinstance(sentence, str) for sentences in caught.value.detail.values() for sentence in sentences)
    assert not TaskInfo.objects.exists()
    assert submit(idempotency_key="k").created  # the key is still free


def test_inputs_that_are_no_mapping_are_refused(queue):
    with pytest.raises(InvalidInputs, match="Got list"):
        submit(inputs=[1])


# Queueing, on commit


@pytest.mark.django_db(transaction=True)
def test_a_run_is_queued_at_once_outside_of_a_transaction(queue):
    info = submit().info
    assert queue.jobs == [Job(info.uuid, "sums")]


@pytest.mark.django_db(transaction=True)
def test_a_run_is_queued_when_the_transaction_around_it_is_committed(queue):
    with transaction.atomic():
        info = submit().info
        with transaction.atomic():
            other = submit(idempotency_key="k").info
        assert queue.jobs == []
    assert queue.jobs == [Job(info.uuid, "sums"), Job(other.uuid, "sums")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", [None, "k"])
def test_a_rollback_leaves_neither_a_row_nor_a_job(queue, key):
    with transaction.atomic():
        submit(idempotency_key=key)
        transaction.set_rollback(True)
    assert not TaskInfo.objects.exists()
    assert queue.jobs == []


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_is_away_does_not_undo_what_is_recorded(settings, caplog):
    settings.TASK_API_BACKEND = "tests.support.backends.AwayBackend"
    info = submit().info
    assert TaskInfo.objects.get().status == "pending"
    assert f"Run {info.uuid} is recorded but could not be queued yet" in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("delay", [60, 60.0, timedelta(minutes=1)])
def test_a_delay_is_counted_from_now(queue, delay):
    before = timezone.now()
    info = submit(delay=delay).info
    after = timezone.now()
    assert before <= info.run_at - timedelta(minutes=1) <= after
    assert queue.jobs == [Job(info.uuid, "sums", info.run_at)]


@pytest.mark.django_db(transaction=True)
def test_a_run_may_be_told_when_to_start(queue):
    moment = timezone.now() + timedelta(days=1)
    info = submit(run_at=moment).info
    assert row(info)["run_at"] == moment
    assert queue.jobs == [Job(info.uuid, "sums", moment)]


def test_a_run_is_not_told_twice_when_to_start(queue):
    with pytest.raises(ValueError, match="not both"):
        submit(delay=1, run_at=timezone.now())
    assert not TaskInfo.objects.exists()


# Idempotency


@pytest.mark.django_db(transaction=True)
def test_a_used_key_gives_the_run_that_it_was_used_for_and_queues_nothing(queue, ann):
    first = submit(user=ann, idempotency_key="k")
    second = submit(inputs={"a": "1", "b": 2}, user=ann, idempotency_key="k")
    assert (first.created, second.created) == (True, False)
    assert second.info == first.info
    assert len(queue.jobs) == 1


def test_a_used_key_gives_the_run_as_it_is_now(queue):
    first = submit(idempotency_key="k").info
    runs.begin(first.uuid)
    assert submit(idempotency_key="k").info.status == "running"


def test_other_inputs_under_a_used_key_are_a_conflict(queue):
    submit(idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        submit(inputs={"a": 2}, idempotency_key="k")
    assert TaskInfo.objects.count() == 1


def test_a_conflict_does_not_break_the_callers_transaction(queue):
    with transaction.atomic():
        submit(idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            submit(inputs={"a": 2}, idempotency_key="k")
        assert submit(idempotency_key="k").info == TaskInfo.objects.get()


def test_a_key_is_its_callers_own(queue, ann, bob):
    callers = [ann, bob, None]
    submissions = [submit(inputs={"a": n}, user=user, idempotency_key="k") for n, user in enumerate(callers)]
    assert all(created for _, created in submissions)


def test_anonymous_callers_are_one_caller(queue):
    first = submit(user=None, idempotency_key="k")
    assert submit(user=AnonymousUser(), idempotency_key="k").info == first.info


def test_a_key_is_of_one_task(queue):
    assert submit(Add, idempotency_key="k").created
    assert submit(Any, {}, idempotency_key="k").created


def test_runs_without_a_key_are_all_their_own(queue):
    assert submit().info != submit().info


@pytest.mark.parametrize("key", ["é", "\ud800", "k" * 10_000, "a\0b"])
def test_a_key_may_be_any_text(queue, key):
    assert submit(idempotency_key=key).info == submit(idempotency_key=key).info


def test_a_key_cannot_be_read_from_the_row(queue):
    info = submit(idempotency_key="secret").info
    assert not any("secret" in str(value) for value in row(info).values())


# Taking up


def test_a_run_that_is_taken_up_is_running_in_its_next_attempt(queue, ann):
    info = submit(user=ann).info
    before = timezone.now()
    held = runs.begin(info.uuid)
    assert held == info
    assert (held.status, held.attempt) == ("running", 1)
    assert first_seq(1) < held.seq < first_seq(2)
    assert before <= held.started <= timezone.now()
    stored = row(info)
    assert all(stored[name] == getattr(held, name) for name in ("status", "attempt", "seq", "started"))


def test_an_async_task_can_read_the_user_of_its_run(queue, ann, django_assert_num_queries):
    held = runs.begin(submit(user=ann).info.uuid)
    with django_assert_num_queries(0):
        assert held.user == ann


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PENDING])
def test_a_run_that_is_not_pending_is_not_taken_up(status):
    info = TaskInfo.objects.create(task="any", status=status)
    before = row(info)
    assert runs.begin(info.uuid) is None
    assert row(info) == before


def test_a_run_that_does_not_exist_is_not_taken_up():
    assert runs.begin(TaskInfo(task="any").uuid) is None


def test_a_later_attempt_begins_with_no_progress_and_goes_on_with_the_messages():
    first = begun()
    runs.record(first, **said(target=10, progress=5, messages=messages(first, "a", "b")))
    first.refresh_from_db()
    runs.finish(first, HANDED_BACK, **said(target=10, progress=5))
    second = runs.begin(first.uuid)
    assert (second.attempt, second.target, second.progress, second.message_count) == (2, None, None, 2)
    assert second.seq > first_seq(2) > first.seq
    assert (row(second)["target"], row(second)["progress"]) == (None, None)


@pytest.mark.django_db(transaction=True)
def test_of_workers_that_race_for_a_run_one_gets_it():
    workers, uuids = 4, [TaskInfo.objects.create(task="any").uuid for _ in range(10)]
    together = threading.Barrier(workers)

    def take():
        try:
            taken = []
            for uuid in uuids:
                together.wait(10)
                taken.append(runs.begin(uuid))
            return taken
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        everybodys = [racing.result() for racing in [pool.submit(take) for _ in range(workers)]]
    assert [sum(info is not None for info in taken) for taken in zip(*everybodys, strict=True)] == [1] * len(uuids)
    assert set(TaskInfo.objects.values_list("status", "attempt")) == {("running", 1)}


def test_a_run_that_somebody_took_between_the_look_and_the_move_is_left_alone(monkeypatch):
    info = TaskInfo.objects.create(task="any")
    usual = runs._held

    def somebody_is_faster(held):
        TaskInfo.objects.update(status="running", attempt=1)
        return usual(held)

    monkeypatch.setattr(runs, "_held", somebody_is_faster)
    assert runs.begin(info.uuid) is None
    assert row(info)["attempt"] == 1


# Reporting


def test_what_an_attempt_says_is_in_the_row():
    held = begun()
    assert runs.record(held, **said(seq=first_seq(1) + 9, target=10, progress=5, messages=messages(held, "a", None)))
    info = TaskInfo.objects.get()
    assert (info.seq, info.target, info.progress, info.message_count) == (first_seq(1) + 9, 10, 5, 2)
    assert info.messages == ["a", None]


def test_a_report_without_messages_leaves_their_number():
    held = begun()
    runs.record(held, **said(messages=messages(held, "a")))
    held.message_count = 1
    assert runs.record(held, **said(progress=1))
    assert TaskInfo.objects.get().message_count == 1


# Who has lost the run writes nothing: each is what somebody else did meanwhile.
LOST = {
    "taken over": {"attempt": 2},
    "handed back": {"status": "pending"},
    "succeeded": {"status": "succeeded"},
    "failed": {"status": "failed"},
    "cancelled": {"status": "cancelled"},
    "deleted": None,
}


@pytest.fixture(params=LOST)
def lost(request):
    """An attempt whose run is no longer its own."""
    held = begun()
    if LOST[request.param] is None:
        TaskInfo.objects.all().delete()
    else:
        TaskInfo.objects.update(**LOST[request.param])
    return held


def everything():
    return list(TaskInfo.objects.values()), list(TaskMessage.objects.values())


def test_who_has_lost_the_run_reports_nothing(lost):
    before = everything()
    assert not runs.record(lost, **said(target=10, progress=5, messages=messages(lost, "zombie")))
    assert everything() == before


# Ending


def test_a_run_ends_with_its_outcome_and_its_last_words():
    held = begun()
    final = runs.finish(held, DONE, **said(seq=first_seq(1) + 9, target=2, progress=2, messages=messages(held, "bye")))
    info = TaskInfo.objects.get()
    for ended in (final, info):
        assert (ended.status, ended.outputs, ended.error) == ("succeeded", {"sum": 3}, None)
        assert (ended.seq, ended.target, ended.progress, ended.message_count) == (first_seq(1) + 9, 2, 2, 1)
        assert ended.started <= ended.finished <= timezone.now()
        assert ended.messages == ["bye"]


def test_a_failed_run_has_an_error_for_the_caller_and_a_traceback_for_staff():
    held = begun()
    runs.finish(held, Outcome.failed(ErrorCode.EXCEPTION, "The task failed.", "Traceback: \0 \ud83d"), **said())
    info = TaskInfo.objects.get()
    assert (info.status, info.outputs) == ("failed", None)
    assert info.error == {"code": "exception", "message": "The task failed."}
    assert info.traceback == "Traceback: \\x00 \\ud83d"


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_handed_back_is_pending_and_queued_again(queue):
    info = submit().info
    held = runs.begin(info.uuid)
    handed_back = runs.finish(held, HANDED_BACK, **said(messages=messages(held, "so far")))
    assert (handed_back.status, handed_back.finished, handed_back.attempt) == ("pending", None, 1)
    assert TaskInfo.objects.get().messages == ["so far"]
    assert queue.jobs == [Job(info.uuid, "sums")] * 2


@pytest.mark.django_db(transaction=True)
def test_a_run_is_queued_again_only_once_it_is_committed(queue):
    held = begun()
    with transaction.atomic():
        runs.finish(held, HANDED_BACK, **said())
        assert queue.jobs == []
    assert len(queue.jobs) == 1


@pytest.mark.django_db(transaction=True)
def test_a_run_that_has_ended_is_not_queued(queue):
    runs.finish(begun(), DONE, **said())
    assert queue.jobs == []


# Sweeping


@pytest.fixture
def old():
    return timezone.now() - upkeep.SWEEP_AGE - timedelta(seconds=1)


def pending(created, queue="default", **fields):
    return TaskInfo.objects.create(task="any", queue=queue, created=created, **fields)


def test_a_sweep_queues_what_has_no_job_and_nothing_else(queue, old):
    moment = timezone.now() + timedelta(days=1)
    lost, later, queued = pending(old), pending(old, run_at=moment), pending(old)
    queue.jobs = [Job(queued.uuid, "default")]
    assert upkeep.requeue(["default"]) == 0
    assert queue.jobs[1:] == [Job(lost.uuid, "default"), Job(later.uuid, "default", moment)]
    upkeep.requeue(["default"])
    assert len(queue.jobs) == 3


def test_a_sweep_gives_a_new_run_time_to_be_queued(queue):
    pending(timezone.now())
    upkeep.requeue(["default"])
    assert queue.jobs == []


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PENDING])
def test_a_sweep_leaves_alone_what_is_not_pending(queue, old, status):
    pending(old, status=status)
    upkeep.requeue(["default"])
    assert queue.jobs == []


def test_a_sweep_is_of_the_workers_own_queues(queue, old):
    first, second, _ = pending(old, "first"), pending(old, "second"), pending(old, "third")
    upkeep.requeue(["first", "second"])
    assert queue.jobs == [Job(first.uuid, "first"), Job(second.uuid, "second")]


def test_sweeps_go_through_the_rows_page_by_page_and_begin_again(queue, old, monkeypatch):
    monkeypatch.setattr(upkeep, "SWEEP_ROWS", 2)
    rows = [pending(old) for _ in range(5)]
    after, pages = 0, []
    for _ in range(4):
        before = len(queue.jobs)
        after = upkeep.requeue(["default"], after)
        pages.append([job.uuid for job in queue.jobs[before:]])
    uuids = [info.uuid for info in rows]
    assert pages == [uuids[:2], uuids[2:4], uuids[4:], []]


def test_a_sweep_of_nothing_is_the_whole_of_it(queue):
    assert upkeep.requeue(["default"], after=7) == 0


# Waiting for the result


def ended(status, **fields):
    return TaskInfo.objects.create(task="any", status=status, **fields)


@pytest.mark.parametrize("outputs", [{"sum": 3}, {}])
def test_the_result_of_a_run_is_its_outputs(outputs):
    assert ended("succeeded", outputs=outputs).result() == outputs


def test_the_result_of_a_run_without_outputs_is_an_empty_dict():
    assert ended("succeeded").result() == {}


def test_a_failed_run_has_an_exception_for_a_result():
    info = ended("failed", error={"code": "timeout", "message": "Too late."})
    with pytest.raises(TaskFailed, match=r"^timeout: Too late\.$") as caught:
        info.result()
    assert (caught.value.code, caught.value.message, caught.value.info) == ("timeout", "Too late.", info)


def test_a_cancelled_run_has_an_exception_for_a_result():
    info = ended("cancelled")
    with pytest.raises(TaskCancelled) as caught:
        info.result()
    assert caught.value.info == info


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_result_is_waited_for_no_longer_than_one_is_told(timeout):
    info = TaskInfo.objects.create(task="any")
    with pytest.raises(TimeoutError, match=f"{info.uuid} is pending after {timeout} s"):
        info.result(timeout)


def test_a_final_run_is_not_waited_for():
    assert ended("succeeded", outputs={"sum": 3}).result(timeout=0) == {"sum": 3}


@pytest.mark.django_db(transaction=True)
async def test_a_result_is_waited_for_until_it_is_there():
    info = await TaskInfo.objects.acreate(task="any", status="running")
    waiting = asyncio.ensure_future(info.aresult(timeout=10))
    done, _ = await asyncio.wait({waiting}, timeout=0.02)  # it looks, and sees nothing yet
    assert not done
    await TaskInfo.objects.aupdate(status="succeeded", outputs={"sum": 3})
    assert await waiting == {"sum": 3}
    assert info.status == "succeeded"
