"""The life of a run: how it is recorded, queued, taken up, reported and ended."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from taskapi import events, protocol, runs
from taskapi.exceptions import (
    IdempotencyConflict,
    InvalidInputs,
    NotFinished,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
)
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import DateTimeParameter, IntParameter, JSONParameter, ListParameter, StringParameter
from taskapi.protocol import Report, first_seq
from taskapi.protocol.states import ErrorCode, Status
from taskapi.runs import CANCELLED, Outcome, moves
from taskapi.store import rows
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
FAILED = Outcome.failed(ErrorCode.TASK_ERROR, "No.")
HANDED_BACK = Outcome(Status.PENDING)


# Submitting


def test_a_run_is_recorded_with_its_inputs_in_the_form_that_they_are_stored_in(queue, ann):
    info, created = submit(inputs={"a": "1"}, user=ann)
    assert created
    stored = TaskInfo.objects.get()
    assert stored == info
    assert (stored.task, stored.queue, stored.user, stored.status) == ("add", "sums", ann, "pending")
    assert stored.inputs == info.inputs == {"a": 1}, "defaults are not recorded"


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


def test_the_same_inputs_are_the_same_though_a_default_is_another_each_time(queue):
    numbers = count()

    class Seeded(Task):
        name = "seeded"
        inputs = {"seed": IntParameter(default=lambda: next(numbers)), "a": IntParameter(default=1)}

    first = submit(Seeded, {}, idempotency_key="k").info
    assert submit(Seeded, {"a": 1}, idempotency_key="k").info == first
    with pytest.raises(IdempotencyConflict):
        submit(Seeded, {"seed": 0}, idempotency_key="k")


@pytest.mark.parametrize("other", [True, 2, "1", None, [1]])
def test_what_python_takes_for_the_same_may_be_another_input(queue, other):
    submit(Any, {"value": 1}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        submit(Any, {"value": other}, idempotency_key="k")


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


def test_the_worker_that_takes_a_run_up_holds_it(queue):
    before = timezone.now()
    held = runs.begin(submit().info.uuid, "mine")
    stored = TaskInfo.objects.get()
    assert (stored, stored.worker) == (held, "mine")
    assert before - timedelta(seconds=1) < stored.renewed <= timezone.now() + timedelta(seconds=1)


def test_a_run_is_not_taken_up_before_its_time(queue, django_capture_on_commit_callbacks):
    """A job of an earlier attempt may still be in the queue when the next one has to wait."""
    moment = timezone.now() + timedelta(hours=1)
    info = submit(run_at=moment).info
    with django_capture_on_commit_callbacks(execute=True):
        assert runs.begin(info.uuid) is None
    assert row(info)["status"] == "pending"
    assert queue.jobs == [Job(info.uuid, "sums", moment)]


@pytest.mark.parametrize("early", [timedelta(0), runs.EARLY / 2])
def test_clocks_that_differ_a_little_do_not_keep_a_run_waiting(queue, early):
    info = submit(run_at=timezone.now() + early).info
    assert runs.begin(info.uuid).status == "running"


def unknown(info):
    return Outcome.failed(ErrorCode.UNKNOWN_TASK, f"No worker knows a task named {info.task!r}.")


# The host's clock is wrong; the database's clock decides


WRONG = [timedelta(days=-400), timedelta(days=400)]


@pytest.fixture(params=WRONG, ids=["behind", "ahead"])
def wrong(request, monkeypatch):
    """The error of the host's clock. The database's clock is right: SQLite reads the real one."""
    right = timezone.now
    monkeypatch.setattr("django.utils.timezone.now", lambda: right() + request.param)
    return request.param


def by_the_database(moment, wrong):
    """Whether the moment is about now by the database's clock."""
    return abs(moment - (timezone.now() - wrong)) < timedelta(minutes=5)


def test_a_wrong_clock_neither_begins_a_run_before_its_time_nor_keeps_it_waiting(queue, wrong):
    right = timezone.now() - wrong
    early, due = submit(run_at=right + timedelta(hours=1)).info, submit(run_at=right - timedelta(hours=1)).info
    assert runs.begin(early.uuid) is None
    assert runs.begin(due.uuid).status == "running"


def test_a_delay_counts_from_the_databases_clock(queue, wrong, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        info = submit(delay=60).info
    assert by_the_database(row(info)["run_at"], wrong)
    (job,) = queue.jobs
    waits = (job.run_at - timezone.now()).total_seconds()
    assert 30 < waits <= 61, "the queue waits for the same time by the host's clock"


def test_a_pause_before_the_next_try_counts_from_the_databases_clock(queue, wrong):
    held = begun()
    runs.finish(held, HANDED_BACK._replace(run_at=timezone.now() + timedelta(seconds=60)), **said())
    assert by_the_database(row(held)["run_at"], wrong)


def test_a_wrong_clock_fails_no_run_whose_task_is_not_known_yet(queue, wrong):
    info = submit().info
    for _ in range(2):
        runs.begin(info.uuid, refuse=unknown)
    assert row(info)["status"] == "pending"


@pytest.mark.usefixtures("memory_layer")
def test_a_wrong_clock_keeps_no_run_whose_task_nobody_knows(queue, wrong):
    info = submit().info
    runs.begin(info.uuid, refuse=unknown)
    TaskInfo.objects.update(renewed=F("renewed") - runs.UNKNOWN_LIMIT - timedelta(seconds=1))
    runs.begin(info.uuid, refuse=unknown)
    assert row(info)["status"] == "failed"


def test_how_long_a_run_is_kept_counts_from_the_databases_clock(queue, wrong):
    held = begun(retain=timedelta(seconds=60))
    runs.finish(held, DONE, **said())
    assert by_the_database(row(held)["expires"], wrong)


def test_a_run_without_a_time_costs_no_statement_more(queue, django_assert_num_queries):
    with django_assert_num_queries(1):
        info = submit().info
    with django_assert_num_queries(2):
        held = runs.begin(info.uuid)
    with django_assert_num_queries(1):
        runs.finish(held, DONE, **said())


# Others change the run at the same time


def test_a_run_that_changes_each_time_that_it_is_to_be_changed_is_an_error_in_the_end(queue, monkeypatch):
    """As under REPEATABLE READ on MySQL: a transaction reads the old row, and its write sees the current one."""
    held, waiting = begun(), submit().info
    monkeypatch.setattr(rows, "change", lambda *args: False)
    with pytest.raises(OperationalError, match=f"The run {held.uuid} had changed each of the 100 times"):
        runs.finish(held, DONE, **said())
    for info in (held, waiting):
        with pytest.raises(OperationalError, match=f"The run {info.uuid} had changed"):
            runs.cancel(info)


@pytest.mark.django_db(transaction=True)
def test_a_run_is_cancelled_inside_a_transaction_of_the_callers_and_told_of_at_its_end(queue, told):
    info = submit().info
    with transaction.atomic():
        assert info.cancel()
        assert told == []
    assert [what for what, *_ in told] == ["followers"]


def test_a_run_that_was_deleted_cannot_be_cancelled(queue):
    info = submit().info
    TaskInfo.objects.all().delete()
    with pytest.raises(TaskInfo.DoesNotExist, match="was deleted"):
        info.cancel()


def test_a_run_whose_task_is_not_known_here_is_left_to_others(queue, django_capture_on_commit_callbacks):
    info = submit().info
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            assert runs.begin(info.uuid, refuse=unknown) is None
    assert (row(info)["status"], row(info)["attempt"]) == ("pending", 0)
    assert [(job.uuid, job.queue, job.run_at > timezone.now()) for job in queue.jobs] == [(info.uuid, "sums", True)] * 2
    assert runs.begin(info.uuid, refuse=lambda info: None if info.task == "add" else unknown(info)).attempt == 1


@pytest.mark.usefixtures("memory_layer")
def test_a_run_whose_task_nobody_knows_fails_in_the_end(queue):
    info = submit().info
    runs.begin(info.uuid, refuse=unknown)
    TaskInfo.objects.update(renewed=F("renewed") - runs.UNKNOWN_LIMIT - timedelta(seconds=1))
    runs.begin(info.uuid, refuse=unknown)
    assert row(info)["status"] == "failed"
    assert TaskInfo.objects.get().error == {"code": "unknown_task", "message": "No worker knows a task named 'add'."}


@pytest.mark.usefixtures("memory_layer")
def test_a_run_that_has_failed_because_nobody_knows_its_task_is_not_offered_again(
    queue, django_capture_on_commit_callbacks
):
    info = submit().info
    with django_capture_on_commit_callbacks(execute=True):
        runs.begin(info.uuid, refuse=unknown)
    TaskInfo.objects.update(renewed=F("renewed") - runs.UNKNOWN_LIMIT - timedelta(seconds=1))
    queue.jobs.clear()
    with django_capture_on_commit_callbacks(execute=True):
        runs.begin(info.uuid, refuse=unknown)
    assert row(info)["status"] == "failed"
    assert queue.jobs == []


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
    usual = moves.as_known

    def somebody_is_faster(held):
        TaskInfo.objects.update(status="running", attempt=1)
        return usual(held)

    monkeypatch.setattr(moves, "as_known", somebody_is_faster)
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


# An attempt that has lost its run writes nothing. Each of these changes takes the run away from it.
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


@pytest.mark.parametrize("outcome", [DONE, FAILED, CANCELLED, HANDED_BACK], ids=lambda outcome: outcome.status)
def test_who_has_lost_the_run_ends_nothing(queue, lost, outcome):
    before = everything()
    assert runs.finish(lost, outcome, **said(target=10, messages=messages(lost, "zombie"))) is None
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


@pytest.mark.parametrize(("attempt", "status"), [(1, "pending"), (2, "pending"), (3, "failed"), (4, "failed")])
def test_a_run_is_tried_as_often_as_its_task_says(queue, attempt, status):
    held = begun(attempt=attempt - 1, max_attempts=3)
    runs.finish(held, HANDED_BACK, **said())
    info = TaskInfo.objects.get()
    assert info.status == status
    assert (info.error or {}).get("code") == (None if status == "pending" else "worker_lost")


@pytest.mark.parametrize(("outcome", "code"), [(runs.WORKER_LOST, "worker_lost"), (runs.PROCESS_LOST, "process_lost")])
def test_the_last_attempt_that_was_lost_fails_the_run_with_what_was_lost(queue, outcome, code):
    runs.finish(begun(attempt=1, max_attempts=2), outcome, **said())
    info = TaskInfo.objects.get()
    assert (info.status, info.error["code"]) == ("failed", code)


def test_attempts_that_were_handed_back_do_not_count(queue):
    info = TaskInfo.objects.create(task="any", max_attempts=2)
    for outcome in (*[runs.HANDED_BACK] * 3, Outcome(Status.PENDING), *[runs.HANDED_BACK] * 2):
        assert runs.finish(runs.begin(info.uuid), outcome, **said()).status == "pending"
    final = runs.finish(runs.begin(info.uuid), Outcome(Status.PENDING), **said())
    assert (final.status, final.attempt, final.handed_back, final.tries) == ("failed", 7, 5, 2)


def test_a_run_of_one_attempt_is_executed_once_whatever_ends_it(queue):
    final = runs.finish(begun(max_attempts=1), runs.HANDED_BACK, **said())
    assert (final.status, final.error["code"]) == ("failed", "worker_lost")


def test_attempts_that_were_lost_with_their_worker_are_counted_by_themselves(queue):
    info = TaskInfo.objects.create(task="any", max_attempts=9)
    for outcome in (runs.WORKER_LOST, runs.PROCESS_LOST, runs.HANDED_BACK, runs.WORKER_LOST):
        runs.finish(runs.begin(info.uuid), outcome, **said())
    assert (row(info)["lost"], row(info)["handed_back"]) == (2, 1)


def test_a_run_that_was_inserted_by_the_version_before_has_nothing_behind_it():
    """During a deploy, servers of that version do not know the columns that the database already has."""
    fields = [field for field in TaskInfo._meta.concrete_fields if field.name not in ("id", "handed_back", "lost")]
    columns = ", ".join(f'"{field.column}"' for field in fields)
    info = TaskInfo(task="any")
    with connection.cursor() as cursor:
        values = [field.get_db_prep_save(field.pre_save(info, True), connection) for field in fields]
        places = ", ".join(["%s"] * len(values))
        cursor.execute(f"INSERT INTO taskapi_taskinfo ({columns}) VALUES ({places})", values)  # noqa: S608 - our own
    begun = runs.begin(info.uuid)
    assert (begun.attempt, begun.handed_back, begun.lost) == (1, 0, 0)


def test_a_run_takes_its_limits_from_its_task(queue, settings):
    class Limited(Add):
        name = "limited"
        max_attempts = 7
        retain = 60

    info = submit(Limited).info
    assert (info.max_attempts, info.retain) == (7, timedelta(minutes=1))
    settings.TASK_API_RETENTION = timedelta(hours=1)
    assert submit().info.retain == timedelta(hours=1)


@pytest.mark.parametrize("retain", [None, timedelta(0), timedelta(days=1)])
def test_a_run_is_kept_for_as_long_after_its_end_as_was_said(retain):
    final = runs.finish(begun(retain=retain), DONE, **said())
    assert final.expires == (None if retain is None else final.finished + retain)


def test_a_run_that_has_not_ended_does_not_expire(queue):
    assert runs.finish(begun(retain=timedelta(0)), HANDED_BACK, **said()).expires is None


def test_nobody_holds_a_run_that_is_not_running(queue):
    for outcome in (DONE, HANDED_BACK):
        runs.finish(runs.begin(TaskInfo.objects.create(task="any").uuid, "mine"), outcome, **said())
    assert set(TaskInfo.objects.values_list("worker", "renewed")) == {("", None)}


def test_a_run_that_is_tried_again_later_waits_until_then(queue, django_capture_on_commit_callbacks):
    moment = timezone.now() + timedelta(hours=1)
    held = begun()
    with django_capture_on_commit_callbacks(execute=True):
        runs.finish(held, HANDED_BACK._replace(run_at=moment), **said())
    assert row(held)["run_at"] == moment
    assert queue.jobs == [Job(held.uuid, "default", moment)]


def test_a_run_that_is_handed_back_may_start_at_once_whenever_it_was_to_start_first(queue):
    held = begun(run_at=timezone.now() - timedelta(hours=1))
    runs.finish(held, HANDED_BACK, **said())
    assert row(held)["run_at"] is None


@pytest.mark.django_db(transaction=True)
def test_a_run_that_has_ended_is_not_queued(queue):
    runs.finish(begun(), DONE, **said())
    assert queue.jobs == []


# Cancelling


@pytest.fixture
def told(monkeypatch):
    """The messages about a cancellation, to followers and to workers."""
    told = []
    monkeypatch.setattr(events, "publish_from_thread", lambda uuid, report: told.append(("followers", uuid, report)))
    monkeypatch.setattr(events, "tell_workers", lambda *execution: told.append(("workers", *execution)))
    return told


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_run_that_waits_is_cancelled_at_once(queue, told, attempt):
    info = TaskInfo.objects.create(task="any", attempt=attempt, seq=first_seq(attempt) + 50, retain=timedelta(days=1))
    assert info.cancel()
    stored = TaskInfo.objects.get()
    for ended in (info, stored):
        assert (ended.status, ended.cancel_requested, ended.error) == ("cancelled", True, None)
        assert abs(ended.expires - ended.finished - timedelta(days=1)) < timedelta(seconds=5)  # two clocks
    ((who, uuid, report),) = told
    assert (who, uuid) == ("followers", info.uuid)
    assert (report.finished, report.seq) == (True, stored.seq)
    assert report.events[0].text == protocol.finished_event(stored).text
    # above the numbers that this attempt has used, and below those of the next
    assert first_seq(attempt) + 50 < stored.seq < first_seq(attempt + 1)


@pytest.mark.django_db(transaction=True)
def test_a_run_that_runs_is_asked_to_stop(told):
    held = begun()
    assert TaskInfo.objects.get().cancel()
    info = TaskInfo.objects.get()
    assert (info.status, info.cancel_requested) == ("running", True)
    empty = Report(held.seq, held.seq, 0, False, ())  # for who waits for any change
    assert told == [("workers", held.uuid, held.attempt), ("followers", held.uuid, empty)]


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_run_that_has_ended_is_not_cancelled(told, status):
    info = TaskInfo.objects.create(task="any", status=status)
    before = row(info)
    assert not info.cancel()
    assert (row(info), told) == (before, [])


def test_an_instance_that_is_out_of_date_cancels_what_there_is_now(told):
    info = TaskInfo.objects.create(task="any")
    runs.begin(info.uuid)
    assert info.cancel()
    assert (info.status, info.cancel_requested) == ("running", True)


@pytest.mark.parametrize("moved_on", ["running", "succeeded"])
def test_a_run_that_moves_on_while_it_is_cancelled_is_looked_at_again(told, monkeypatch, moved_on):
    info = TaskInfo.objects.create(task="any")
    usual, moved = moves.as_known, []

    def meanwhile(held):
        if not moved:
            moved.append(TaskInfo.objects.update(status=moved_on))
        return usual(held)

    monkeypatch.setattr(moves, "as_known", meanwhile)
    assert info.cancel() is (moved_on == "running")
    assert (info.status, info.cancel_requested) == (moved_on, moved_on == "running")


@pytest.mark.django_db(transaction=True)
def test_a_rollback_takes_a_cancel_back(told):
    info = TaskInfo.objects.create(task="any")
    with transaction.atomic():
        info.cancel()
        assert told == []
        transaction.set_rollback(True)
    assert (TaskInfo.objects.get().status, told) == ("pending", [])


@pytest.mark.parametrize("outcome", [DONE, FAILED], ids=lambda outcome: outcome.status)
def test_a_cancel_that_the_task_never_notices_changes_nothing(told, outcome):
    held = begun()
    TaskInfo.objects.get().cancel()
    final = runs.finish(held, outcome, **said())
    assert (final.status, final.cancel_requested) == (outcome.status, True)


def test_a_run_that_was_to_be_cancelled_is_not_tried_again(queue, told):
    held = begun()
    TaskInfo.objects.get().cancel()
    assert runs.finish(held, HANDED_BACK, **said()).status == "cancelled"
    assert queue.jobs == []


@pytest.mark.django_db(transaction=True)
async def test_a_run_is_cancelled_from_async_code(memory_layer):
    info = await TaskInfo.objects.acreate(task="any")
    assert await info.acancel()
    assert not await info.acancel()
    assert info.status == "cancelled"


# Retrying


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_run_that_has_ended_is_started_anew(queue, settings, ann, status):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    first = submit(user=ann, idempotency_key="k").info
    TaskInfo.objects.update(status=status)
    first.refresh_from_db()
    second = first.retry()
    assert second != first
    assert (second.task, second.inputs, second.user) == ("add", {"a": 1}, ann)
    assert (second.status, second.attempt, second.idempotency) == ("pending", 0, None)
    assert row(first)["status"] == status


def test_an_instance_that_is_out_of_date_goes_by_what_the_row_says_now(queue, settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    first = submit().info
    TaskInfo.objects.update(status="succeeded")
    assert first.status == "pending"
    assert first.retry() != first


@pytest.mark.parametrize("status", ["pending", "running"])
def test_a_run_that_has_not_ended_is_not_started_anew(status):
    info = TaskInfo.objects.create(task="any", status=status)
    with pytest.raises(NotFinished, match=f"The run is {status}") as caught:
        info.retry()
    assert caught.value.info == info
    assert TaskInfo.objects.count() == 1


def test_a_run_whose_task_is_no_more_is_not_started_anew(settings):
    settings.TASK_API_BACKGROUND_TASKS = []
    with pytest.raises(UnknownTask):
        TaskInfo.objects.create(task="add", status="failed").retry()


@pytest.mark.django_db(transaction=True)
async def test_a_run_is_started_anew_from_async_code(queue, settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    info = await TaskInfo.objects.acreate(task="add", status="failed", inputs={"a": 1})
    assert (await info.aretry()).inputs == {"a": 1}


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
