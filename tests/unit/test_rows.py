"""The compiled statements do the same as those of the ORM."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from taskapi.models import TaskInfo
from taskapi.store import rows

pytestmark = pytest.mark.django_db

FIELDS = [field.attname for field in TaskInfo._meta.concrete_fields]


def a_run(**fields):
    return TaskInfo.objects.create(**{"task": "any", "inputs": {"a": [1, "\0", None]}} | fields)


def values(info):
    return {name: getattr(info, name) for name in FIELDS}


def test_a_row_is_inserted_as_the_orm_inserts_it():
    moment = timezone.now()
    given = {
        "task": "any", "inputs": {"a": [1, "\0", None]}, "user": User.objects.create(username="ada"), "queue": "slow",
        "run_at": moment, "max_attempts": 1, "retain": timedelta(days=1), "idempotency": "k",
    }  # fmt: skip
    for fields in (given, {"task": "plain"}):
        info = TaskInfo(**fields)
        rows.insert(info)
        found = TaskInfo.objects.get(pk=info.pk)
        assert values(found) == values(info)
        assert not info._state.adding
        by_the_orm = TaskInfo.objects.create(**fields | {"idempotency": None})
        differing = {"id", "uuid", "created", "idempotency"}
        assert {name: value for name, value in values(found).items() if name not in differing} == {
            name: value for name, value in values(by_the_orm).items() if name not in differing
        }
    info.task = "other"
    info.save()
    assert TaskInfo.objects.get(pk=info.pk).task == "other"


def test_a_row_is_read_as_the_orm_reads_it():
    moment = timezone.now()
    full = a_run(
        status="failed", user=User.objects.create(username="ada"), outputs={"b": 1.5}, error={"code": "timeout"},
        target=2**52, progress=-1, attempt=2, seq=2 * 10**9, cancel_requested=True, idempotency="k", run_at=moment,
        started=moment, finished=moment, renewed=moment, retain=timedelta(days=7, microseconds=1), expires=moment,
    )  # fmt: skip
    for info in (full, a_run()):
        found = rows.read({"uuid": info.uuid})
        assert values(found) == values(TaskInfo.objects.get(pk=info.pk))
        assert not found._state.adding
        assert found._state.db == "default"
    assert rows.read({"uuid": full.uuid}).user.username == "ada"


def test_a_row_is_read_where_all_its_fields_are_so():
    info = a_run(status="running")
    assert rows.read({"pk": info.pk, "status": "running"}) == info
    assert rows.read({"pk": info.pk, "status": "pending"}) is None


def test_a_row_that_is_read_can_be_saved_again():
    info = rows.read({"pk": a_run().pk})
    info.task = "other"
    info.save()
    assert TaskInfo.objects.get().task == "other"


def test_a_change_is_of_one_row_and_of_what_it_names():
    info, other = a_run(), a_run()
    before = values(info)
    moment = timezone.now()
    changes = {"outputs": {"sum": 1}, "finished": moment, "retain": timedelta(seconds=1), "target": None}
    assert rows.change({"pk": info.pk, "status": "pending", "cancel_requested": False}, changes)
    assert values(TaskInfo.objects.get(pk=info.pk)) == before | changes
    assert values(TaskInfo.objects.get(pk=other.pk)) == values(other)


def test_what_is_not_so_any_more_is_not_changed():
    info = a_run(attempt=2)
    assert not rows.change({"pk": info.pk, "attempt": 1}, {"task": "other"})
    assert TaskInfo.objects.get().task == "any"


def test_now_is_the_databases_clock():
    info = a_run()
    for changes in ({"renewed": rows.NOW}, {"renewed": None}, {"renewed": rows.NOW, "worker": "mine"}):
        before = timezone.now() - timedelta(seconds=1)  # SQLite's clock counts milliseconds
        assert rows.change({"pk": info.pk}, changes)
        renewed = TaskInfo.objects.get().renewed
        assert (
            renewed is None if changes["renewed"] is None else before < renewed < timezone.now() + timedelta(seconds=1)
        )


def test_a_statement_is_built_once_for_each_shape(django_assert_num_queries):
    info = a_run()
    for number in range(3):
        with django_assert_num_queries(2):
            rows.change({"pk": info.pk}, {"seq": number})
            assert rows.read({"pk": info.pk}).seq == number
    assert rows._update("default", ("pk",), ("seq",), ()) is rows._update("default", ("pk",), ("seq",), ())
