"""What keeps runs going without anybody asking, on the rows themselves; tests/faults does it to real processes."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from taskapi import runs, upkeep
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import first_seq

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue")]

LONG_AGO = timedelta(minutes=1)


def running(worker="mine", *, lost=False, **fields):
    """A run in its first attempt; `lost`: its worker has not renewed its lease for long."""
    info = TaskInfo.objects.create(task="any", **fields)
    info = runs.begin(info.uuid, worker)
    if lost:
        TaskInfo.objects.filter(pk=info.pk).update(renewed=timezone.now() - LONG_AGO)
    return info


def now(info):
    return TaskInfo.objects.get(pk=info.pk)


# Leases


def test_a_worker_renews_the_leases_of_what_it_executes():
    info = running(lost=True)
    assert upkeep.renew("mine", {info.uuid}).runs == {info.uuid}
    assert upkeep.take_back() == []


def test_a_lease_is_renewed_by_its_holder_alone():
    info = running("others", lost=True)
    assert upkeep.renew("mine", {info.uuid}).runs == set()
    assert [taken.uuid for taken in upkeep.take_back()] == [info.uuid]


def test_a_run_that_its_worker_does_not_execute_is_not_renewed():
    info = running(lost=True)
    assert upkeep.renew("mine", {uuid4()}).runs == set()
    assert [taken.uuid for taken in upkeep.take_back()] == [info.uuid]


def test_renewing_tells_what_somebody_asked_to_stop():
    asked, other = running(), running()
    assert runs.cancel(asked)
    held = upkeep.renew("mine", {asked.uuid, other.uuid})
    assert held == upkeep.Held({asked.uuid, other.uuid}, {asked.uuid})


# Taking back


def test_a_lease_that_holds_is_left_alone():
    info = running()
    assert upkeep.take_back() == []
    assert now(info).status == "running"


def test_a_lost_run_waits_for_its_next_attempt(queue):
    info = running(lost=True)
    (taken,) = upkeep.take_back()
    assert (taken.status, taken.attempt, now(info).status) == ("pending", 1, "pending")
    assert [job.uuid for job in queue.jobs] == [info.uuid]
    assert runs.begin(info.uuid, "other").attempt == 2


def test_what_a_lost_attempt_still_says_is_below_what_follows():
    info = running(lost=True)
    (taken,) = upkeep.take_back()
    assert info.seq < taken.seq < first_seq(2) < runs.begin(info.uuid, "other").seq


def test_a_run_that_had_its_last_attempt_has_failed(queue):
    info = running(lost=True, max_attempts=1)
    (taken,) = upkeep.take_back()
    assert (taken.status, taken.error["code"], queue.jobs) == ("failed", "worker_lost", [])
    assert now(info).finished is not None


def test_a_lost_run_that_was_to_be_cancelled_is(queue):
    info = running(lost=True)
    runs.cancel(info)
    (taken,) = upkeep.take_back()
    assert (taken.status, queue.jobs) == ("cancelled", [])


def test_a_zombie_writes_nothing():
    info = running(lost=True)
    upkeep.take_back()
    words = [TaskMessage(run_id=info.pk, index=0, attempt=1, seq=info.seq + 1, body="late")]
    assert not runs.record(info, seq=info.seq + 5, target=1, progress=1, messages=words)
    outcome = runs.Outcome("succeeded", {})
    assert runs.finish(info, outcome, seq=info.seq + 5, target=1, progress=1, messages=words) is None
    assert (now(info).status, now(info).message_count, TaskMessage.objects.count()) == ("pending", 0, 0)


# Cancelling and retrying


def test_a_run_that_waits_is_cancelled_at_once():
    info = TaskInfo.objects.create(task="any")
    assert info.cancel()
    assert (now(info).status, now(info).cancel_requested, runs.begin(info.uuid)) == ("cancelled", True, None)


def test_a_run_that_runs_is_asked():
    info = running()
    assert info.cancel()
    assert (now(info).status, now(info).cancel_requested) == ("running", True)


def test_a_run_that_has_ended_is_not_cancelled():
    info = TaskInfo.objects.create(task="any", status="succeeded")
    assert not info.cancel()
    assert (now(info).status, now(info).cancel_requested) == ("succeeded", False)


# Deleting


def finished(ago, **fields):
    return TaskInfo.objects.create(task="any", status="succeeded", expires=timezone.now() - ago, **fields)


def test_what_has_expired_is_deleted_with_its_messages():
    old, young = finished(LONG_AGO, message_count=1), finished(-LONG_AGO)
    TaskMessage.objects.create(run=old, index=0, attempt=1, seq=1, body="old")
    assert upkeep.prune() == 1
    assert upkeep.prune() == 0
    assert list(TaskInfo.objects.all()) == [young]
    assert not TaskMessage.objects.exists()


def test_what_is_kept_for_ever_stays():
    TaskInfo.objects.create(task="any", status="succeeded", expires=None)
    assert upkeep.prune() == 0


def test_much_is_deleted_in_small_batches(monkeypatch):
    monkeypatch.setattr(upkeep, "PRUNE_ROWS", 2)
    for _ in range(3):
        finished(LONG_AGO)
    assert [upkeep.prune(), upkeep.prune(), upkeep.prune()] == [2, 1, 0]
