"""The thread that renews leases, and tells what it found."""

import queue as queues
from uuid import uuid4

import pytest
from django.db import connection

from taskapi import runs
from taskapi.models import TaskInfo
from taskapi.workers import leases
from taskapi.workers.leases import LeaseKeeper
from taskapi.workers.upkeep import Renewal

pytestmark = pytest.mark.django_db(transaction=True)


class Keeper:
    """A keeper at work, for the runs in `executing`; `told` is what it tells."""

    def __init__(self):
        self.executing = set()
        self.told = queues.Queue()
        self.asked = queues.Queue()
        self.thread = LeaseKeeper("mine", self.ask, lambda *found: self.told.put(found))

    def ask(self):
        self.asked.put(None)
        return set(self.executing)


@pytest.fixture
def keeper(monkeypatch):
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 0.01)
    keeper = Keeper()
    yield keeper
    keeper.thread.stop()
    if keeper.thread.ident is not None:
        keeper.thread.join(10)
    assert not keeper.thread.is_alive()


def held(worker):
    info = runs.begin(TaskInfo.objects.create(task="any").uuid, worker)
    return info.uuid, info.attempt


def test_it_tells_which_runs_there_were_and_which_are_held(keeper):
    mine, theirs, gone = held("mine"), held("theirs"), (uuid4(), 1)
    keeper.executing = {mine, theirs, gone}
    keeper.thread.start()
    assert keeper.told.get(timeout=10) == ({mine, theirs, gone}, Renewal({mine}, set()))


def test_it_goes_on_for_as_long_as_it_is_not_stopped(keeper):
    keeper.executing = {held("mine")}
    keeper.thread.start()
    first, second = keeper.told.get(timeout=10), keeper.told.get(timeout=10)
    assert first == second


def test_a_run_that_begins_while_leases_are_renewed_is_not_taken_for_lost(keeper, monkeypatch):
    usual, begun = leases.renew, held("mine")

    def renew(*args):
        found = usual(*args)
        keeper.executing.add(begun)  # too late for this renewal
        return found

    monkeypatch.setattr(leases, "renew", renew)
    keeper.executing = {held("mine")}
    keeper.thread.start()
    executing, found = keeper.told.get(timeout=10)
    assert executing <= found.held
    executing, found = keeper.told.get(timeout=10)
    assert begun in executing <= found.held


def test_where_nothing_is_executed_nothing_is_asked(keeper, monkeypatch):
    monkeypatch.setattr(leases, "renew", lambda *args: keeper.told.put("asked"))
    keeper.thread.start()
    for _ in range(3):
        keeper.asked.get(timeout=10)
    assert keeper.told.empty()


def test_a_database_that_is_away_is_asked_again(keeper, monkeypatch, caplog):
    usual, errors = leases.renew, iter([ConnectionError("away")])

    def renew(*args):
        for error in errors:
            raise error
        return usual(*args)

    monkeypatch.setattr(leases, "renew", renew)
    keeper.executing = {held("mine")}
    keeper.thread.start()
    keeper.told.get(timeout=10)
    assert "The leases could not be renewed: ConnectionError('away')" in caplog.text


def test_runs_that_change_while_they_are_looked_at_are_looked_at_again(keeper, monkeypatch, caplog):
    usual, errors = keeper.ask, iter([RuntimeError("dictionary changed size during iteration")])

    def ask():
        for error in errors:
            raise error
        return usual()

    keeper.thread._executing = ask
    keeper.executing = {held("mine")}
    keeper.thread.start()
    keeper.told.get(timeout=10)
    assert "The leases could not be renewed: RuntimeError" in caplog.text


def test_it_does_not_keep_its_process_from_ending(keeper):
    assert keeper.thread.daemon


def test_its_connection_is_kept_while_it_works_and_closed_when_it_ends(keeper, monkeypatch):
    used = []

    def renew(*args):
        connection.ensure_connection()
        used.append(connection.connection)
        return Renewal(set(), set())

    monkeypatch.setattr(leases, "renew", renew)
    keeper.executing = {(uuid4(), 1)}
    keeper.thread.start()
    for _ in range(2):
        keeper.told.get(timeout=10)
    keeper.thread.stop()
    keeper.thread.join(10)
    assert used[0] is used[1]
    with pytest.raises(Exception, match="closed"):
        used[0].execute("SELECT 1")
