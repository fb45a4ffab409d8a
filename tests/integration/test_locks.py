"""Rows that another transaction has locked, on a real PostgreSQL: only the write that needs them waits."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, IntegrityError, OperationalError, connections, transaction
from django.test import override_settings
from django.utils import timezone

from taskapi import runs
from taskapi.backends import get_backend
from taskapi.exceptions import IdempotencyConflict
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import IntParameter
from taskapi.protocol.states import Status
from taskapi.runs import LEASE, Outcome
from taskapi.store.database import in_database
from taskapi.store.ledger import ServerLedger, WorkerLedger
from taskapi.tasks import Task
from taskapi.workers import upkeep
from tests.support.databases import Databases
from tests.support.routers import To
from tests.support.waiting import until, wait_for

ALIAS = "locks"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Sum(Task):
    name = "sum"
    outputs = {"sum": IntParameter()}


@pytest.fixture(scope="module")
def address(databases: Databases, django_db_blocker: Any) -> Iterator[dict[str, str]]:
    database = databases.new("postgres")
    connections.settings[ALIAS] = connections.settings[DEFAULT_DB_ALIAS] | {"OPTIONS": {}} | database
    try:
        with django_db_blocker.unblock(), override_settings(DATABASE_ROUTERS=[To(ALIAS)]):
            call_command("migrate", database=ALIAS, verbosity=0)
        yield {"host": database["HOST"], "user": database["USER"], "dbname": database["NAME"]}
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


@pytest.fixture
def other(address: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A connection of another client, in autocommit."""
    with psycopg.connect(**address, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def database(address: dict[str, str], settings: Any, django_db_blocker: Any) -> Iterator[None]:
    settings.DATABASE_ROUTERS = [To(ALIAS)]
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Sum]
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with django_db_blocker.unblock():
        yield
        connections[ALIAS].close()
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("TRUNCATE taskapi_taskinfo, auth_user CASCADE")


def a_run(**fields: Any) -> TaskInfo:
    return TaskInfo.objects.create(**{"task": "sum"} | fields)


def begun(**fields: Any) -> TaskInfo:
    info = runs.begin(a_run(**fields).uuid, "mine")
    assert info is not None
    return info


def said(info: TaskInfo, *bodies: Any) -> dict[str, Any]:
    messages = [
        TaskMessage(run_id=info.pk, index=n, attempt=1, seq=info.seq + 1 + n, body=body)
        for n, body in enumerate(bodies)
    ]
    return {"seq": info.seq + len(bodies) + 4, "target": None, "progress": None, "messages": messages}


@contextmanager
def locked(other: psycopg.Connection[Any], table: str, pk: int) -> Iterator[None]:
    """Another transaction has changed the row, and has not committed."""
    with other.transaction(force_rollback=True):
        other.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [pk])  # noqa: S608 - a name of ours
        yield


async def begin_together(ledger: Any, *functions: Callable[[], Any]) -> list["asyncio.Future[Any]"]:
    """Writes that share a transaction: the first keeps the ledger busy until the others wait."""
    opened = threading.Event()
    first = asyncio.ensure_future(ledger.write(partial(opened.wait, 10)))
    await asyncio.sleep(0)
    writes = [asyncio.ensure_future(ledger.write(function)) for function in functions]
    await asyncio.sleep(0)
    opened.set()
    await first
    return writes


@pytest.fixture(params=[WorkerLedger, ServerLedger])
async def ledger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ServerLedger, "patience_beside", 60.0)
    ledger = request.param()
    yield ledger
    await ledger.close()
    if request.param is ServerLedger:
        await in_database(connections.close_all)


async def test_who_writes_a_locked_run_keeps_no_neighbour_waiting(ledger, other):
    infos = await in_database(lambda: [begun() for _ in range(4)])
    with locked(other, "taskapi_taskinfo", infos[1].pk):
        writes = await begin_together(ledger, *(partial(runs.record, info, **said(info, "hello")) for info in infos))
        first, stuck, *others = writes
        assert await asyncio.wait_for(asyncio.gather(first, *others), 30) == [True] * 3
        assert await asyncio.wait_for(ledger.write(lambda: "goes on"), 30) == "goes on"
        assert not stuck.done()
    assert await asyncio.wait_for(stuck, 30) is True
    assert await in_database(TaskMessage.objects.count) == 4


async def test_several_locked_runs_keep_nobody_waiting_and_each_is_written_when_it_is_free(ledger, other):
    infos = await in_database(lambda: [begun() for _ in range(3)])
    with locked(other, "taskapi_taskinfo", infos[0].pk), locked(other, "taskapi_taskinfo", infos[1].pk):
        *stuck, free = await begin_together(ledger, *(partial(runs.record, info, **said(info)) for info in infos))
        assert await asyncio.wait_for(free, 30) is True
        assert not any(write.done() for write in stuck)
    assert await asyncio.wait_for(asyncio.gather(*stuck), 30) == [True, True]


async def test_a_new_run_of_a_locked_user_keeps_no_neighbour_waiting(ledger, other):
    """`User.objects.select_for_update()` locks out inserts that refer to the user."""
    ada, bob = await in_database(lambda: [User.objects.create(username=name) for name in ("ada", "bob")])
    draft = await in_database(lambda: [runs.draft(Sum, {}, user=user) for user in (ada, bob, None)])
    with locked(other, "auth_user", ada.pk):
        stuck, *others = await begin_together(ledger, *(partial(runs.save, info) for info in draft))
        assert all(saved.created for saved in await asyncio.wait_for(asyncio.gather(*others), 30))
        assert not stuck.done()
    assert (await asyncio.wait_for(stuck, 30)).created


async def test_a_run_whose_idempotency_key_somebody_is_about_to_use_keeps_no_neighbour_waiting(ledger, other):
    first = await in_database(lambda: runs.submit(Sum, {}, idempotency_key="k").info)
    draft = await in_database(lambda: runs.draft(Sum, {}, idempotency_key="k2"))
    plain = await in_database(lambda: runs.draft(Sum, {}))
    with other.transaction(force_rollback=True):
        other.execute("UPDATE taskapi_taskinfo SET idempotency = %s WHERE id = %s", [draft.idempotency, first.pk])
        stuck, free = await begin_together(ledger, partial(runs.save, draft), partial(runs.save, plain))
        assert (await asyncio.wait_for(free, 30)).created
        assert not stuck.done()
    assert (await asyncio.wait_for(stuck, 30)).created


async def test_a_server_gives_up_what_stays_locked(other, monkeypatch):
    monkeypatch.setattr(ServerLedger, "patience_beside", 0.5)
    ledger = ServerLedger()
    info = await in_database(begun)
    with locked(other, "taskapi_taskinfo", info.pk), pytest.raises(OperationalError, match="lock timeout"):
        await asyncio.wait_for(ledger.write(partial(runs.cancel, info)), 30)
    await until(lambda: not ledger._beside and ledger._spare is None)
    await in_database(connections.close_all)


# The sweep


def test_a_sweep_takes_back_what_nobody_has_locked(other):
    lost = [begun() for _ in range(3)]
    TaskInfo.objects.update(renewed=timezone.now() - LEASE - timedelta(seconds=5))
    with locked(other, "taskapi_taskinfo", lost[0].pk):
        assert upkeep.take_back() == lost[1:]
    assert upkeep.take_back() == lost[:1]


def test_a_sweep_deletes_what_nobody_has_locked(other):
    past = timezone.now() - timedelta(seconds=5)
    expired = [a_run(status="succeeded", expires=past) for _ in range(3)]
    with locked(other, "taskapi_taskinfo", expired[0].pk):
        assert upkeep.prune() == 2
    assert upkeep.prune() == 1
    assert not TaskInfo.objects.exists()


# A user or a run is deleted while the run is executed


@contextmanager
def meanwhile(statement: str, function: Callable[[], Any], other: psycopg.Connection[Any]) -> Iterator[list[Any]]:
    """After the first statement that begins so, another thread calls `function`, which ends or waits for a lock."""
    came: list[Any] = []
    with ThreadPoolExecutor(1) as thread:

        def call() -> Any:
            try:
                return function()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                return error
            finally:
                connections.close_all()

        def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            result = execute(sql, params, many, context)
            if sql.startswith(statement) and not came:
                came.append(thread.submit(call))
                wait_for(lambda: came[0].done() or other.execute(WAITING).fetchone() != (0,))
            return result

        with connections[ALIAS].execute_wrapper(watch):
            yield came
    assert came, "the statement was never executed"


@pytest.mark.parametrize("statement", ['DELETE FROM "taskapi_taskmessage"', 'SELECT "taskapi_taskinfo"."id"'])
@pytest.mark.parametrize("what", ["user", "users", "run", "runs"])
def test_who_is_deleted_while_his_run_talks_is_gone(other, what, statement):
    ada = User.objects.create(username="ada")
    info = begun(user=ada)
    targets = {"user": ada, "users": User.objects.all(), "run": info, "runs": TaskInfo.objects.all()}
    with meanwhile(statement, lambda: runs.record(info, **said(info, "hello")), other):
        targets[what].delete()
    assert not TaskInfo.objects.exists()
    assert not TaskMessage.objects.exists()
    assert not runs.record(info, **said(info, "late")), "its attempt learns that it has lost the run"


@pytest.mark.parametrize("statement", ['DELETE FROM "taskapi_taskmessage"', 'SELECT "taskapi_taskinfo"."id"'])
def test_who_is_deleted_while_he_starts_a_run_is_gone(other, statement):
    ada = User.objects.create(username="ada")
    begun(user=ada)
    with meanwhile(statement, lambda: runs.submit(Sum, {}, user=ada), other) as started:
        ada.delete()
    error = started[0].result()
    assert not TaskInfo.objects.exists()
    assert not User.objects.exists()
    assert isinstance(error, IntegrityError) or error.created, "its insert was refused, or its run was deleted, too"


def test_a_run_that_ended_since_django_looked_is_deleted_too(other):
    ada = User.objects.create(username="ada")

    def start_and_finish() -> None:
        info = runs.begin(runs.submit(Sum, {}, user=ada).info.uuid, "mine")
        assert info is not None
        runs.finish(info, Outcome(Status.SUCCEEDED, {}), **said(info))

    begun(user=ada)
    with meanwhile('SELECT "taskapi_taskinfo"."id"', start_and_finish, other):
        ada.delete()
    assert not TaskInfo.objects.exists()


def test_django_counts_what_was_deleted():
    info = begun(user=User.objects.create(username="ada"))
    runs.record(info, **said(info, 1, 2))
    assert info.delete() == (3, {"taskapi.TaskMessage": 2, "taskapi.TaskInfo": 1})
    assert runs.record(info, **said(info)) is False


def test_pruning_is_of_runs_that_have_ended_and_needs_no_more_for_that():
    a_run(status="succeeded", expires=timezone.now() - timedelta(seconds=5))
    with transaction.atomic(using=ALIAS):
        assert upkeep.prune() == 1


# Many runs under one idempotency key


class Number(Task):
    name = "number"
    inputs = {"n": IntParameter()}


NUMBERS = [{"n": 1}, {"n": 2}, {"n": 3}]


def start_meanwhile(function: Callable[[], Any], other: psycopg.Connection[Any], *, commit: bool) -> Any:
    """What `function` does, which has to wait until another transaction with the same key has ended."""

    def call() -> Any:
        try:
            return function()
        except IdempotencyConflict as conflict:
            return conflict
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(using=ALIAS):
            Number.start_many(NUMBERS, idempotency_key="key")
            second = pool.submit(call)
            wait_for(lambda: other.execute(WAITING).fetchone() == (1,))
            transaction.set_rollback(not commit, using=ALIAS)
        return second.result(30)


def test_a_second_call_with_the_same_key_waits_and_gets_the_runs_of_the_first(other):
    again = start_meanwhile(partial(Number.start_many, NUMBERS, idempotency_key="key"), other, commit=True)
    assert list(TaskInfo.objects.order_by("id")) == again
    assert [info.inputs for info in again] == NUMBERS
    assert [job.uuid for job in get_backend().jobs] == [info.uuid for info in again]


def test_if_the_first_is_rolled_back_the_second_starts_its_own(other):
    second = start_meanwhile(partial(Number.start_many, NUMBERS[:2], idempotency_key="key"), other, commit=False)
    assert list(TaskInfo.objects.order_by("id")) == second
    assert [info.inputs for info in second] == NUMBERS[:2]
    assert [job.uuid for job in get_backend().jobs] == [info.uuid for info in second]


@pytest.mark.parametrize(
    "call",
    [
        lambda: Number.start_many(NUMBERS[:2], idempotency_key="key"),
        lambda: Number.start_many([*NUMBERS, {"n": 4}], idempotency_key="key"),
        lambda: Number.start(NUMBERS[0], idempotency_key="key"),
    ],
    ids=["shorter", "longer", "one"],
)
def test_another_list_at_the_same_time_is_a_conflict(other, call):
    assert isinstance(start_meanwhile(call, other, commit=True), IdempotencyConflict)
    assert TaskInfo.objects.count() == len(NUMBERS)


def test_many_calls_at_the_same_time_start_one_set():
    callers = 4
    together = threading.Barrier(callers)

    def start(number: int) -> Any:
        together.wait(30)
        try:
            return [info.uuid for info in Number.start_many(NUMBERS, idempotency_key=f"key {number}")]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(callers) as pool:
        for number in range(6):
            answers = list(pool.map(start, [number] * callers))
            assert answers == answers[:1] * callers
    assert TaskInfo.objects.count() == len(get_backend().jobs) == 6 * len(NUMBERS)
