"""The record keeps every JSON value unchanged, and an instance and its messages are of one moment."""

import json
from copy import copy

import pytest
from django.contrib.auth.models import User
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, connection
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapi.models import JSONTextField, TaskInfo, TaskMessage

pytestmark = pytest.mark.django_db

AWKWARD = [None, True, 0, 1.0, -(2**70), 1e300, "", "\0", "\ud83d", "é\u2028", [], {}, [[1, None]], {"b": 1, "a": [2]}]


def say(info, *bodies):
    first = info.log.count()
    for index, body in enumerate(bodies, first):
        TaskMessage.objects.create(run=info, index=index, attempt=1, seq=index, body=body)
    TaskInfo.objects.filter(pk=info.pk).update(message_count=first + len(bodies))


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
def test_a_value_is_read_as_it_was_written(value):
    stored = TaskInfo.objects.create(task="any", inputs={"value": value}, outputs=value)
    read = TaskInfo.objects.get(pk=stored.pk)
    assert read.inputs == {"value": value}
    assert read.outputs == value
    assert type(read.outputs) is type(value)


def test_keys_keep_their_order():
    TaskInfo.objects.create(task="any", inputs={"b": 1, "a": 2, "": 3})
    assert list(TaskInfo.objects.get().inputs) == ["b", "a", ""]


@settings(deadline=None, max_examples=50)
@given(value=st.recursive(st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                          lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_what_is_written_to_the_column_is_ascii_and_has_no_nul(value):
    text = JSONTextField().get_prep_value(value)
    assert text.isascii()
    assert "\0" not in text
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_is_not_json_is_not_written(value):
    with pytest.raises(ValueError, match="JSON"):
        TaskInfo.objects.create(task="any", outputs=value)


def test_a_run_can_be_dumped_and_loaded(tmp_path):
    info = TaskInfo.objects.create(task="any", inputs={"a": [1]}, error={"code": "timeout", "message": "late"})
    say(info, {"n": 1}, None)
    path = tmp_path / "runs.json"
    path.write_text(serializers.serialize("json", [info, *info.log.all()]))
    info.delete()
    call_command("loaddata", str(path), verbosity=0)
    loaded = TaskInfo.objects.get()
    assert (loaded.inputs, loaded.outputs, loaded.error) == ({"a": [1]}, None, {"code": "timeout", "message": "late"})
    assert [message.body for message in loaded.log.order_by("index")] == [{"n": 1}, None]


# Messages


def test_messages_come_in_order_and_past_the_first_that_are_known():
    info = TaskInfo.objects.create(task="any")
    say(info, "a", {"b": 1}, None)
    info.refresh_from_db()
    assert info.messages == ["a", {"b": 1}, None]
    assert [info.messages_after(count) for count in (1, 2, 3, 99)] == [[{"b": 1}, None], [None], [], []]


def test_an_instance_has_the_messages_of_its_own_moment():
    info = TaskInfo.objects.create(task="any")
    say(info, "a")
    info.refresh_from_db()
    say(info, "b")
    assert info.messages == ["a"]
    info.refresh_from_db()
    assert info.messages == ["a", "b"]


def test_messages_are_those_of_the_run():
    ours, theirs = TaskInfo.objects.create(task="any"), TaskInfo.objects.create(task="any")
    say(theirs, "theirs")
    say(ours, "ours")
    ours.refresh_from_db()
    assert ours.messages == ["ours"]


def test_a_run_that_has_said_nothing_is_not_asked(django_assert_num_queries):
    info = TaskInfo.objects.create(task="any")
    with django_assert_num_queries(0):
        assert info.messages == []


def test_an_index_is_used_once():
    info = TaskInfo.objects.create(task="any")
    say(info, "a")
    with pytest.raises(IntegrityError):
        TaskMessage.objects.create(run=info, index=0, attempt=2, seq=9, body="again")


# The rest of the row


@pytest.mark.parametrize(
    ("status", "final"),
    [("pending", False), ("running", False), ("succeeded", True), ("failed", True), ("cancelled", True)],
)
def test_a_run_knows_whether_it_has_ended(status, final):
    assert TaskInfo(status=status).is_final is final


def test_a_new_run_is_pending_and_has_done_nothing():
    info = TaskInfo.objects.create(task="any")
    info.refresh_from_db()
    assert (info.status, info.attempt, info.seq, info.message_count) == ("pending", 0, 0, 0)
    assert (info.inputs, info.outputs, info.progress, info.target) == ({}, None, None, None)
    assert (info.started, info.finished, info.cancel_requested) == (None, None, False)
    assert info.created is not None


def test_rows_say_what_they_are():
    info = TaskInfo.objects.create(task="sum")
    say(info, "a")
    assert str(info) == f"sum {info.uuid}"
    assert str(info.log.get()) == f"{info.pk} [0]"


def test_runs_are_listed_newest_first():
    old, new = TaskInfo.objects.create(task="old"), TaskInfo.objects.create(task="new")
    assert list(TaskInfo.objects.all()) == [new, old]


def test_the_sweeps_query_needs_no_look_at_finished_runs():
    with connection.cursor() as cursor:
        query, params = TaskInfo.objects.filter(status="pending", id__gt=5).order_by("id").query.sql_with_params()
        cursor.execute(f"EXPLAIN QUERY PLAN {query}", params)
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "taskapi_status" in plan
    assert "TEMP B-TREE" not in plan  # the index has the order, too


def test_the_migrations_are_those_of_the_models():
    call_command("makemigrations", "taskapi", check=True, dry_run=True, verbosity=0)


def test_a_copy_has_its_values_and_a_state_of_its_own():
    user = User.objects.create(username="ann")
    info = TaskInfo.objects.create(task="add", user=user)
    copied = copy(info)
    values = {name: value for name, value in vars(info).items() if name != "_state"}
    assert {name: value for name, value in vars(copied).items() if name != "_state"} == values
    assert vars(copied._state) == vars(info._state)
    copied._state.fields_cache.clear()
    copied._state.adding = True
    assert info._state.fields_cache == {"user": user}
    assert not info._state.adding
