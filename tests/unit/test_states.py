"""The table of moves; `move` makes these moves and no others."""

from itertools import product

import pytest

from taskapi.models import TaskInfo
from taskapi.protocol.states import FINAL, MOVES, ErrorCode, Status
from taskapi.runs.moves import move

# The table, written a second time: a move that is added to MOVES by mistake fails here.
LEGAL = {
    ("pending", "running"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("running", "pending"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


def test_every_status_has_its_moves():
    assert set(MOVES) == set(Status)


def test_the_final_ones_are_those_without_a_move():
    assert {status for status in Status if not MOVES[status]} == FINAL == {"succeeded", "failed", "cancelled"}


@pytest.mark.django_db
@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_a_run_moves_where_the_table_lets_it_and_is_untouched_otherwise(before, after):
    info = TaskInfo.objects.create(task="any", status=before, progress=1)
    moved = move(info, after, progress=2)
    stored = TaskInfo.objects.get()
    expected = (True, after, 2) if (before, after) in LEGAL else (False, before, 1)
    assert (moved, stored.status, stored.progress) == expected
    assert (info.status, info.progress) == expected[1:]


@pytest.mark.django_db
@pytest.mark.parametrize("first", sorted(MOVES[Status.RUNNING]))
@pytest.mark.parametrize("second", sorted(MOVES[Status.RUNNING]))
def test_of_two_that_move_the_same_run_the_second_changes_nothing(first, second):
    info = TaskInfo.objects.create(task="any", status=Status.RUNNING, progress=0)
    mine, yours = TaskInfo.objects.get(pk=info.pk), TaskInfo.objects.get(pk=info.pk)
    assert move(mine, first, progress=1)
    assert not move(yours, second, progress=2)
    info.refresh_from_db()
    assert (info.status, info.progress) == (first, 1)
    assert (yours.status, yours.progress) == (Status.RUNNING, 0)


@pytest.mark.django_db
def test_a_later_attempt_is_not_moved_by_an_earlier_one():
    info = TaskInfo.objects.create(task="any", status=Status.RUNNING, attempt=1)
    TaskInfo.objects.update(attempt=2)
    assert not move(info, Status.SUCCEEDED)
    info.refresh_from_db()
    assert info.status == Status.RUNNING


def test_statuses_and_codes_are_the_words_of_the_contract():
    assert {str(status) for status in Status} == {"pending", "running", "succeeded", "failed", "cancelled"}
    codes = {"exception", "task_error", "timeout", "worker_lost", "process_lost", "invalid_outputs", "unknown_task"}
    assert {str(code) for code in ErrorCode} == codes
