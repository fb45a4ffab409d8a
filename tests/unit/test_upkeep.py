"""Lost workers and lost jobs are found by the rows alone, and what has expired is deleted."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import OperationalError, connection, models
from django.db.models import F
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from taskapi import runs
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import first_seq
from taskapi.protocol.states import Status
from taskapi.runs import LEASE, Outcome
from taskapi.store import rows
from taskapi.workers import upkeep
from tests.support.backends import Job

pytestmark = pytest.mark.django_db

LONG_AGO = LEASE + timedelta(seconds=1)


def held(worker="mine", since=timedelta(0), **fields):
    """A run that a worker executes, and has not renewed its lease for so long."""
    info = runs.begin(TaskInfo.objects.create(task="any", **fields).uuid, worker)
    TaskInfo.objects.filter(pk=info.pk).update(renewed=F("renewed") - since)
    info.refresh_from_db()
    return info


def row(info):
    return TaskInfo.objects.filter(pk=info.pk).values().get()


# Leases


def test_a_worker_renews_the_runs_that_it_executes():
    info = held(since=LONG_AGO)
    assert upkeep.renew("mine", {(info.uuid, 1)}) == ({(info.uuid, 1)}, set())
    assert row(info)["renewed"] - info.renewed > LEASE


def test_a_worker_is_told_which_of_its_runs_it_holds_and_which_are_to_stop():
    mine, cancelled = held(), held(cancel_requested=True)
    ended, theirs, lost = held(), held("theirs"), held()
    TaskInfo.objects.filter(pk=ended.pk).update(status="succeeded")
    TaskInfo.objects.filter(pk=lost.pk).update(worker="theirs", attempt=2)
    gone = TaskInfo(task="any")
    executing = {(info.uuid, 1) for info in (mine, cancelled, ended, theirs, lost, gone)}
    assert upkeep.renew("mine", executing) == ({(mine.uuid, 1), (cancelled.uuid, 1)}, {(cancelled.uuid, 1)})


def test_an_attempt_renews_no_lease_of_a_later_one_of_its_run_and_is_told_of_none():
    """Both are this worker's: it lost the run, and took it up again, while the task of the first goes on."""
    info, other = held(attempt=1, since=LONG_AGO), held(cancel_requested=True)
    TaskInfo.objects.filter(pk=info.pk).update(cancel_requested=True)
    before = row(info)
    assert upkeep.renew("mine", {(info.uuid, 1), (other.uuid, 1)}) == ({(other.uuid, 1)}, {(other.uuid, 1)})
    assert row(info) == before
    assert upkeep.renew("mine", {(info.uuid, 1), (info.uuid, 2)}) == ({(info.uuid, 2)}, {(info.uuid, 2)})


def test_leases_are_renewed_by_a_statement_that_does_not_read_first():
    """In Django's default mode, SQLite refuses a write in a transaction that has read, if another has written since."""
    info = held()
    with CaptureQueriesContext(connection) as captured:
        upkeep.renew("mine", {(info.uuid, 1)})
    assert captured[0]["sql"].startswith("UPDATE")


def test_a_worker_renews_nothing_that_it_does_not_execute():
    """Its process may hold a run that it does not know of: no worker would take that up again."""
    forgotten, theirs = held(since=LONG_AGO), held("theirs", since=LONG_AGO)
    before = [row(forgotten), row(theirs)]
    upkeep.renew("mine", {(theirs.uuid, 1)})
    assert [row(forgotten), row(theirs)] == before


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_worker_is_lost_waits_for_another(queue, caplog):
    info = held(since=LONG_AGO)
    (taken,) = upkeep.take_back()
    assert taken == info
    stored = row(info)
    assert (stored["status"], stored["worker"], stored["renewed"]) == ("pending", "", None)
    assert (stored["attempt"], stored["run_at"], stored["finished"]) == (1, None, None)
    assert first_seq(1) < info.seq < stored["seq"] == taken.seq < first_seq(2)
    assert queue.jobs == [Job(info.uuid, "default")]
    assert f"Run {info.uuid} lost its worker in attempt 1; it is pending." in caplog.text


def test_a_lost_worker_is_fenced(queue):
    info = held(since=LONG_AGO)
    upkeep.take_back()
    said = {"seq": info.seq + 4, "target": None, "progress": 5, "messages": []}
    assert not runs.record(info, **said)
    assert runs.finish(info, Outcome(Status.SUCCEEDED), **said) is None
    assert row(info)["progress"] is None


def test_the_next_attempt_is_another_workers(queue):
    info = held(since=LONG_AGO)
    upkeep.take_back()
    again = runs.begin(info.uuid, "theirs")
    assert (again.attempt, again.worker) == (2, "theirs")
    assert upkeep.renew("mine", {(info.uuid, 1)}) == (set(), set())


def test_a_run_that_has_had_its_last_attempt_has_failed(queue):
    held(since=LONG_AGO, attempt=2, max_attempts=3, retain=timedelta(days=1))
    (taken,) = upkeep.take_back()
    info = TaskInfo.objects.get()
    assert (taken.status, info.status, info.error["code"]) == ("failed", "failed", "worker_lost")
    assert abs(info.expires - info.finished - timedelta(days=1)) < timedelta(seconds=5)  # by the database's clock
    assert queue.jobs == []


def test_a_run_that_was_to_be_cancelled_is_when_its_worker_is_lost(queue):
    held(since=LONG_AGO, cancel_requested=True)
    (taken,) = upkeep.take_back()
    assert (taken.status, TaskInfo.objects.get().status) == ("cancelled", "cancelled")


@pytest.mark.parametrize("since", [timedelta(0), LEASE / 2])
def test_a_run_whose_lease_is_good_is_left_alone(queue, since):
    info = held(since=since)
    before = row(info)
    assert upkeep.take_back() == []
    assert row(info) == before


@pytest.mark.parametrize("status", [status for status in Status if status != Status.RUNNING])
def test_only_what_runs_can_lose_its_worker(queue, status):
    """A worker that did not know the task of a pending run has set `renewed` in its row."""
    TaskInfo.objects.create(task="any", status=status, renewed=timezone.now() - LONG_AGO)
    assert upkeep.take_back() == []


def test_a_lease_that_is_renewed_in_the_last_moment_is_good(queue, monkeypatch):
    info = held(since=LONG_AGO)
    usual = upkeep._lock

    def meanwhile(rows):
        monkeypatch.setattr(upkeep, "_lock", usual)
        upkeep.renew("mine", {(info.uuid, 1)})
        return usual(rows)

    monkeypatch.setattr(upkeep, "_lock", meanwhile)
    assert upkeep.take_back() == []
    assert row(info)["status"] == "running"


def test_a_lease_that_is_renewed_after_the_look_and_before_the_write_is_good(queue):
    """As on SQLite, where reading the rows locks nothing."""
    info = held(since=LONG_AGO)
    renewing = iter([TaskInfo.objects.filter(pk=info.pk)])

    def meanwhile(execute, sql, *arguments):
        if sql.startswith("UPDATE"):
            for mine in renewing:  # once
                mine.update(renewed=F("renewed") + LONG_AGO)
        return execute(sql, *arguments)

    with connection.execute_wrapper(meanwhile):
        assert upkeep.take_back() == []
    assert next(renewing, None) is None, "nothing was written"
    assert row(info)["status"] == "running"


def test_a_lost_run_goes_on_above_all_that_its_attempt_has_said_even_while_it_is_taken_back(queue):
    """A worker that could not renew its lease may still write, between the read and the write of a sweep."""
    info = held(since=LONG_AGO)
    last_words = iter([info.seq + 400])

    def meanwhile(execute, sql, *arguments):
        if sql.startswith("UPDATE"):
            for seq in last_words:  # once
                assert runs.record(info, seq=seq, target=None, progress=5, messages=[])
        return execute(sql, *arguments)

    with connection.execute_wrapper(meanwhile):
        (taken,) = upkeep.take_back()
    assert info.seq + 400 < taken.seq == row(info)["seq"] < first_seq(2)


def test_every_lost_run_is_taken_back_and_one_that_is_not_does_not_matter(queue):
    lost = [held(since=LONG_AGO) for _ in range(3)]
    held()
    assert upkeep.take_back() == lost


def test_a_run_that_cannot_be_taken_back_keeps_no_other_waiting(queue, monkeypatch, caplog):
    bad, good = held(since=LONG_AGO), held(since=LONG_AGO)

    def end(info, *rest):
        if info == bad:
            raise ValueError("a signal handler of the project's, say")
        return runs.end(info, *rest)

    monkeypatch.setattr(upkeep, "end", end)
    assert upkeep.take_back() == [good]
    assert f"The lost run with the id {bad.pk} could not be taken back" in caplog.text
    assert row(bad)["worker"] == "mine", "it is as it was, for the next sweep"


@pytest.mark.django_db(transaction=True)
def test_the_runs_of_a_dead_worker_are_free_at_once_and_those_of_others_are_not(queue, monkeypatch):
    monkeypatch.setattr(upkeep, "RELEASE_PAUSE", 0)
    told = []
    monkeypatch.setattr(upkeep, "publish_from_thread", lambda uuid, report: told.append((uuid, report.finished)))
    dead, spent, theirs = held("dead"), held("dead", max_attempts=1), held("theirs")
    pending = TaskInfo.objects.create(task="any")
    upkeep.release("dead")
    assert (row(dead)["status"], row(dead)["lost"], row(spent)["status"]) == ("pending", 1, "failed")
    assert (row(theirs)["status"], row(pending)["status"]) == ("running", "pending")
    assert queue.jobs == [Job(dead.uuid, "default")]
    assert told == [(dead.uuid, False), (spent.uuid, True)]


@pytest.mark.django_db(transaction=True)
def test_what_the_database_still_did_for_a_dead_worker_is_seen_a_moment_later(queue, monkeypatch):
    late = []
    monkeypatch.setattr(upkeep.time, "sleep", lambda seconds: late.append(held("dead")) if not late else None)
    upkeep.release("dead")
    assert row(late[0])["status"] == "pending"


# Lost jobs


@pytest.fixture
def old():
    return timezone.now() - upkeep.SWEEP_AGE - timedelta(seconds=1)


def pending(created, queue="default", **fields):
    return TaskInfo.objects.create(task="any", queue=queue, created=created, **fields)


def test_a_sweep_queues_what_has_no_job_and_nothing_else(queue, old):
    moment = timezone.now() + timedelta(minutes=30)
    lost, later, queued = pending(old), pending(old, run_at=moment), pending(old)
    queue.jobs = [Job(queued.uuid, "default")]
    assert upkeep.requeue(["default"]) == 0
    assert queue.jobs[1:] == [Job(lost.uuid, "default"), Job(later.uuid, "default", moment)]
    upkeep.requeue(["default"])
    assert len(queue.jobs) == 3


def test_a_sweep_does_not_look_at_what_is_not_due_for_long(queue, old):
    later = pending(old, run_at=timezone.now() + timedelta(days=1))
    upkeep.requeue(["default"])
    assert queue.jobs == []
    TaskInfo.objects.filter(pk=later.pk).update(run_at=(moment := timezone.now() + timedelta(minutes=59)))
    upkeep.requeue(["default"])
    assert queue.jobs == [Job(later.uuid, "default", moment)]


def test_a_lost_job_is_found_at_once_whatever_waits_in_other_queues(queue, old, monkeypatch):
    monkeypatch.setattr(upkeep, "SWEEP_ROWS", 2)
    for _ in range(5):
        pending(old, queue="other")
    lost = pending(old)
    assert upkeep.requeue(["default"]) == 0
    assert queue.jobs == [Job(lost.uuid, "default")]


def test_a_sweep_reads_nothing_that_it_does_not_use(queue, old):
    for _ in range(3):
        pending(old, inputs={"large": "x" * 100_000})
    with CaptureQueriesContext(connection) as captured:
        upkeep.requeue(["default"])
    assert len(captured) == 1, captured.captured_queries
    assert '"inputs"' not in captured[0]["sql"]
    assert len(queue.jobs) == 3


def test_a_sweep_asks_and_queues_a_page_of_jobs_at_once(queue, old, monkeypatch):
    together, asked = [], []
    usual = queue.missing

    @contextmanager
    def all_at_once():
        yield
        together.append(len(queue.jobs))

    monkeypatch.setattr(queue, "together", all_at_once)
    monkeypatch.setattr(queue, "missing", lambda name, uuids: asked.append(name) or usual(name, uuids))
    for name in ("one", "two", "one"):
        pending(old, queue=name)
    upkeep.requeue(["one", "two"])
    assert (asked, together) == (["one", "two"], [3])


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


# Retention


def expired(status="succeeded", ago=timedelta(seconds=1), messages=0, **fields):
    info = TaskInfo.objects.create(task="any", status=status, expires=timezone.now() - ago, **fields)
    for index in range(messages):
        TaskMessage.objects.create(run=info, index=index, attempt=1, seq=index, body=index)
    return info


def test_what_has_expired_is_deleted_with_its_messages():
    expired(messages=3)
    kept = expired(ago=timedelta(seconds=-60), messages=2)
    forever = TaskInfo.objects.create(task="any", status="succeeded")
    assert upkeep.prune() == 1
    assert set(TaskInfo.objects.all()) == {kept, forever}
    assert set(TaskMessage.objects.values_list("run", flat=True)) == {kept.pk}
    assert upkeep.prune() == 0


@pytest.mark.parametrize("status", ["pending", "running"])
def test_what_has_not_ended_is_kept(status):
    expired(status)
    assert upkeep.prune() == 0
    assert TaskInfo.objects.exists()


def test_many_are_deleted_in_portions_the_oldest_first(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    runs_by_age = [expired(ago=timedelta(seconds=ago)) for ago in (1, 3, 2)]
    assert upkeep.prune() == 2
    assert list(TaskInfo.objects.all()) == runs_by_age[:1]


def test_a_sweep_deletes_some_portions(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    monkeypatch.setattr(upkeep, "PRUNE_PAGES", 3)
    for _ in range(9):
        expired()
    assert [upkeep.prune_pages() for _ in range(3)] == [6, 3, 0]


def test_the_command_deletes_all_and_says_how_many(monkeypatch, capsys):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    for _ in range(5):
        expired()
    call_command("prunetasks")
    assert capsys.readouterr().out == "Deleted 5 runs.\n"
    assert not TaskInfo.objects.exists()


# What cannot be deleted


def refuse(sender, instance, **_):
    if instance.task == "precious":
        raise ValueError("a signal handler of the project's")


@pytest.fixture
def handler():
    """The project has a handler that raises, for runs of one task."""
    pre_delete.connect(refuse, sender=TaskInfo)
    yield
    pre_delete.disconnect(refuse, sender=TaskInfo)


@pytest.fixture(params=[models.PROTECT, models.RESTRICT, models.DO_NOTHING], ids=lambda kind: kind.__name__)
def bills(request, transactional_db):
    """A model of the project points to runs."""
    registered = apps.all_models["tests"].copy()

    class Bill(models.Model):  # noqa: DJ008 - nobody prints it
        run = models.ForeignKey(TaskInfo, on_delete=request.param)

        class Meta:
            app_label = "tests"

    apps.clear_cache()
    with connection.schema_editor() as editor:
        editor.create_model(Bill)
    yield Bill.objects
    with connection.schema_editor() as editor:
        editor.delete_model(Bill)
    apps.all_models["tests"] = registered
    apps.clear_cache()


def test_a_run_that_the_project_protects_is_left_out_and_all_others_go(bills, monkeypatch, caplog):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 4)
    rows = [expired(ago=timedelta(seconds=60 - n), messages=1) for n in range(10)]
    kept = {rows[n].pk for n in (0, 1, 2, 3, 5, 9)}  # a whole page, and one of each other
    for pk in kept:
        bills.create(run_id=pk)
    pruner = upkeep.Pruner()
    assert upkeep.prune_pages(pruner) == 4
    assert set(TaskInfo.objects.values_list("pk", flat=True)) == kept
    assert set(TaskMessage.objects.values_list("run", flat=True)) == kept
    assert caplog.text.count("cannot be deleted") == 1


@pytest.mark.usefixtures("handler")
def test_a_run_that_a_signal_handler_keeps_is_left_out_and_all_others_go(monkeypatch, caplog):
    expired(ago=timedelta(seconds=9))
    TaskInfo.objects.update(task="precious")
    expired(ago=timedelta(seconds=5))
    assert upkeep.prune() == 1
    assert [info.task for info in TaskInfo.objects.all()] == ["precious"]
    assert "a signal handler of the project's" in caplog.text


@pytest.mark.usefixtures("handler")
def test_what_was_left_out_is_tried_again_when_its_hour_is_over(monkeypatch):
    kept = expired()
    TaskInfo.objects.update(task="precious")
    pruner, tries = upkeep.Pruner(), []
    monkeypatch.setattr(upkeep, "_delete", lambda ids: tries.append(ids) or 1 / 0)
    for _ in range(3):
        pruner.page()
    assert tries == [[kept.pk]]
    pruner.left[kept.pk] = 0.0
    pruner.page()
    assert tries == [[kept.pk]] * 2


def test_a_page_on_which_the_database_gave_up_is_followed_by_the_next(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    first, _, third = (expired(ago=timedelta(seconds=9 - n)) for n in range(3))
    usual, pruner = upkeep._delete, upkeep.Pruner()

    def delete(ids):
        if first.pk in ids:
            raise OperationalError("away")
        return usual(ids)

    monkeypatch.setattr(upkeep, "_delete", delete)
    with pytest.raises(OperationalError):
        pruner.page()
    assert not pruner.page()
    assert not TaskInfo.objects.filter(pk=third.pk).exists()


@pytest.mark.usefixtures("handler")
def test_the_command_ends_and_says_how_many_are_left(monkeypatch, capsys):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    for task in ["precious"] * 3 + ["any"] * 2:
        info = expired()
        TaskInfo.objects.filter(pk=info.pk).update(task=task)
    call_command("prunetasks")
    assert capsys.readouterr().out == "Deleted 2 runs.\n3 more have expired, but could not be deleted.\n"


# The machine's clock is wrong, and the database's decides


@pytest.mark.parametrize("wrong", [timedelta(days=-400), timedelta(days=400)])
def test_a_wrong_clock_changes_nothing_for_a_sweep(queue, monkeypatch, old, wrong):
    right = timezone.now
    kept, gone = expired(ago=timedelta(hours=-1)), expired(ago=timedelta(hours=1))
    new, lost = pending(timezone.now()), pending(old)
    fresh, forsaken = held(), held(since=LONG_AGO)
    monkeypatch.setattr("django.utils.timezone.now", lambda: right() + wrong)
    assert upkeep.prune() == 1
    upkeep.requeue(["default"])
    assert upkeep.take_back() == [forsaken]
    assert {info.pk for info in TaskInfo.objects.all()} == {info.pk for info in (kept, new, lost, fresh, forsaken)}
    assert Job(lost.uuid, "default") in queue.jobs
    assert new.uuid not in [job.uuid for job in queue.jobs]
    assert gone.pk is not None


def test_a_lost_job_of_a_server_whose_clock_is_ahead_is_found_at_once(queue):
    ahead = pending(timezone.now() + timedelta(hours=1))
    upkeep.requeue(["default"])
    assert queue.jobs == [Job(ahead.uuid, "default")]


@pytest.mark.parametrize(
    ("zone", "clock"),
    [
        ("UTC", "UTC_TIMESTAMP(6)"),
        ("Europe/Berlin", "COALESCE(CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', 'Europe/Berlin'), CURRENT_TIMESTAMP(6))"),
    ],
)
def test_mysqls_clock_knows_no_time_zone_of_the_session(zone, clock):
    """Django does not set the time zone of MySQL, whose own clock jumps when summer time ends."""

    class MySQL:  # no driver for it is installed here
        timezone_name = zone
        ops = connection.ops

    compiler = TaskInfo.objects.all().query.get_compiler("default")
    assert rows.CLOCK.as_mysql(compiler, MySQL())[0] == clock
    assert rows.NOW.as_mysql(compiler, MySQL())[0] == "UTC_TIMESTAMP(6)"
