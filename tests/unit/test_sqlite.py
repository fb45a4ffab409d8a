"""SQLite with WAL, but without `transaction_mode = IMMEDIATE`: our writes beside a busy writer are not refused."""

import sqlite3
import threading

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings
from django.utils import timezone

from taskapi import runs
from taskapi.models import TaskInfo
from taskapi.protocol.states import Status
from taskapi.runs import Outcome
from taskapi.store.ledger import WorkerLedger
from taskapi.workers import upkeep
from tests.support.routers import To

ALIAS = "deferred"
OPTIONS = {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}


@pytest.fixture
def deferred(tmp_path, settings, django_db_blocker):
    """The path of a database whose transactions begin without their lock."""
    path = str(tmp_path / "deferred.sqlite3")
    connections.settings[ALIAS] = connections.settings[DEFAULT_DB_ALIAS] | {"NAME": path, "OPTIONS": OPTIONS}
    settings.DATABASE_ROUTERS = [To(ALIAS)]
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with django_db_blocker.unblock(), override_settings(DATABASE_ROUTERS=[To(ALIAS)]):
        call_command("migrate", database=ALIAS, verbosity=0)
        yield path
        connections[ALIAS].close()
    del connections[ALIAS], connections.settings[ALIAS]


@pytest.fixture
def busy_writer(deferred):
    """Another connection writes all the time, in short transactions."""
    stopping = threading.Event()

    def write():
        database = sqlite3.connect(deferred, timeout=20, isolation_level=None)
        while not stopping.is_set():
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE auth_user SET first_name = 'x'")
            database.execute("COMMIT")
            stopping.wait(0.001)
        database.close()

    thread = threading.Thread(target=write)
    thread.start()
    yield
    stopping.set()
    thread.join()


def make(count, **fields):
    return TaskInfo.objects.bulk_create(TaskInfo(task="any", **fields) for _ in range(count))


@pytest.mark.usefixtures("busy_writer")
def test_cancelling_beside_a_busy_writer_is_not_refused():
    for info in make(150) + make(150, status="running", attempt=1):
        assert info.cancel()


@pytest.mark.usefixtures("busy_writer")
def test_a_sweep_beside_a_busy_writer_is_not_refused():
    long_ago = timezone.now() - 2 * runs.LEASE
    make(100, status="running", attempt=1, renewed=long_ago)
    make(100, status="succeeded", expires=long_ago)
    for _ in range(20):
        upkeep.PRUNE_ROWS, usual = 5, upkeep.PRUNE_ROWS
        try:
            assert upkeep.prune() == 5
        finally:
            upkeep.PRUNE_ROWS = usual
    assert len(upkeep.take_back()) == 100


@pytest.mark.usefixtures("busy_writer")
def test_a_deletion_beside_a_busy_writer_is_not_refused():
    for n in range(30):
        user = User.objects.create(username=str(n))
        make(3, user=user)
        user.delete()
        (run,) = make(1, status="running", attempt=1)
        run.delete()
    assert not TaskInfo.objects.exists()


@pytest.mark.usefixtures("busy_writer")
async def test_a_worker_beside_a_busy_writer_is_not_refused(caplog):
    ledger = WorkerLedger()
    said = {"seq": 2 * 10**9, "target": None, "progress": None, "messages": []}
    for uuid in [info.uuid for info in await ledger.write(lambda: make(100))]:
        held = await ledger.write(lambda uuid=uuid: runs.begin(uuid, "mine"))
        assert held is not None
        assert await ledger.write(lambda held=held: runs.finish(held, Outcome(Status.SUCCEEDED, {}), **said))
    await ledger.close()
    assert "does not take" not in caplog.text
