"""Many writes share a transaction, and none harms another."""

import asyncio
import sqlite3
import threading

import pytest
from django.db import IntegrityError, InterfaceError, InternalError, OperationalError, connection, transaction

from taskapi.models import TaskInfo
from taskapi.store import ledger as ledgers
from taskapi.store.ledger import MOST_WRITES, WorkerLedger
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def ledger():
    ledger = WorkerLedger()
    yield ledger
    await ledger.close()


def insert(name):
    TaskInfo.objects.create(task=name)
    return name


async def stored():
    return [name async for name in TaskInfo.objects.order_by("id").values_list("task", flat=True)]


class Begins:
    """Counts the transactions that begin on the ledger's connection, from the write that installs it."""

    def __init__(self):
        self.count = 0

    def install(self):
        connection.execute_wrappers.append(self)

    def __call__(self, execute, sql, params, many, context):
        self.count += sql.startswith("BEGIN")
        return execute(sql, params, many, context)


class Gate:
    """A write that keeps the ledger busy until it is opened: what is written meanwhile shares the next transaction."""

    def __init__(self, ledger):
        self.entered, self.opened = asyncio.Event(), threading.Event()
        self.loop = asyncio.get_running_loop()
        self.writing = self.loop.create_task(ledger.write(self.wait))

    def wait(self):
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.opened.wait(10)


async def write_together(ledger, *functions, prepare=None):
    """The results, or the errors, of writes that wait at the same time."""
    gate = Gate(ledger)
    await gate.entered.wait()
    writes = []
    for function in functions:
        writes.append(asyncio.ensure_future(ledger.write(function, prepare=prepare)))
        await asyncio.sleep(0)  # its task runs and queues it: the writes keep their order
    gate.opened.set()
    return await asyncio.gather(*writes, return_exceptions=True)


async def test_a_write_returns_what_its_function_returns(ledger):
    assert await ledger.write(lambda: insert("a")) == "a"
    assert await stored() == ["a"]


async def test_every_write_is_made_on_one_thread_and_none_on_the_loops(ledger):
    threads = {await ledger.write(threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(("writes", "transactions"), [(20, 1), (MOST_WRITES, 1), (2 * MOST_WRITES + 1, 3)])
async def test_writes_that_wait_share_a_transaction(ledger, writes, transactions):
    begins = Begins()
    await ledger.write(begins.install)
    names = [str(n) for n in range(writes)]
    results = await write_together(ledger, *(lambda name=name: insert(name) for name in names))
    assert results == names
    assert await stored() == names
    assert begins.count == transactions + 1  # the gate's own


async def test_a_write_that_fails_does_no_harm_to_its_neighbours(ledger, caplog):
    def fail():
        insert("half")
        raise IntegrityError("no such run")

    results = await write_together(ledger, lambda: insert("before"), fail, lambda: insert("after"))
    assert [str(result) for result in results] == ["before", "no such run", "after"]
    assert isinstance(results[1], IntegrityError)
    assert await stored() == ["before", "after"]
    assert caplog.text == "", "it is not logged as an error of the database"


async def test_a_write_gets_what_was_prepared_for_it_before_the_transaction(ledger):
    def prepare():
        return connection.in_atomic_block

    assert await ledger.write(lambda prepared: (prepared, connection.in_atomic_block), prepare=prepare) == (False, True)


async def test_a_write_is_prepared_once_even_if_it_is_written_twice(ledger):
    prepared, written = [], []

    def prepare():
        prepared.append(len(prepared))
        return prepared[-1]

    def fail(number):
        raise IntegrityError

    await write_together(ledger, written.append, fail, written.append, prepare=prepare)
    assert prepared == [0, 1, 2]
    assert written == [0, 0, 2]  # all were rolled back together, and then each was written alone


async def test_what_cannot_be_prepared_is_not_written_and_does_no_harm_to_its_neighbours(ledger):
    begins = Begins()
    await ledger.write(begins.install)
    refused = iter([False, True, False])

    def prepare():
        if next(refused):
            raise ValueError("refused")
        return "name"

    results = await write_together(ledger, insert, insert, insert, prepare=prepare)
    assert [str(result) for result in results] == ["name", "refused", "name"]
    assert await stored() == ["name", "name"]
    assert begins.count == 1 + 1  # the gate's, and one for them all


async def test_an_error_that_no_future_takes_is_told_as_another_and_the_ledger_goes_on(ledger):
    def prepare():
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await ledger.write(insert, prepare=prepare)
    assert await ledger.write(lambda: insert("next")) == "next"


async def test_the_first_write_is_on_its_way_before_the_loop_does_anything_else(ledger):
    began, seen = threading.Event(), []
    writing = asyncio.ensure_future(ledger.write(began.set))
    asyncio.get_running_loop().call_soon(lambda: seen.append(began.wait(10)))  # this blocks the loop
    await writing
    assert seen == [True]


async def test_what_waits_for_a_commit_happens_once_and_only_after_it(ledger):
    happened = []

    def write(name):
        insert(name)
        transaction.on_commit(lambda: happened.append((name, connection.in_atomic_block)))

    def fail():
        transaction.on_commit(lambda: happened.append("never"))
        raise ValueError

    await write_together(ledger, lambda: write("before"), fail, lambda: write("after"))
    assert happened == [("before", False), ("after", False)]


async def test_a_lone_write_that_fails_is_rolled_back_and_tried_once(ledger):
    calls = []

    def fail():
        calls.append(insert("half"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await ledger.write(fail)
    assert calls == ["half"]
    assert await stored() == []


async def test_a_write_is_made_though_nobody_waits_for_it_any_more(ledger):
    gate = Gate(ledger)
    await gate.entered.wait()
    writing = asyncio.ensure_future(ledger.write(lambda: insert("a")))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    gate.opened.set()
    assert await ledger.write(lambda: insert("b")) == "b"
    assert await stored() == ["a", "b"]


async def test_what_was_written_alone_is_not_written_again_when_a_neighbour_is_tried_again(ledger):
    """One write fails, so each is written alone; then the database is away for another one."""
    away = iter([OperationalError("away")])
    calls = []

    def write_together_or_not(name):
        calls.append(name)
        if name == "away" and calls.count("away") > 1:
            for error in away:
                raise error
        return insert(name)

    def fail():
        raise ValueError("no")

    results = await write_together(
        ledger, lambda: write_together_or_not("first"), lambda: write_together_or_not("away"), fail
    )
    assert [str(result) for result in results] == ["first", "away", "no"]
    assert await stored() == ["first", "away"]


# The database is away


def give_up_at_once():
    """The ledger's connection does not wait for SQLite's lock; with the project's settings it would wait 20 s."""
    connection.cursor().execute("PRAGMA busy_timeout = 0")


async def test_a_write_waits_until_the_database_takes_it(ledger, caplog):
    await ledger.write(give_up_at_once)
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(ledger.write(lambda: insert("a")))
    await until(lambda: "does not take writes (database is locked)" in caplog.text)
    other.execute("COMMIT")
    other.close()
    assert await writing == "a"
    assert await stored() == ["a"]


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
async def test_a_write_whose_transaction_was_ended_is_made_again(ledger, error):
    """PostgreSQL raises InternalError for a process that was frozen in the transaction."""
    errors = iter([error("ended")])

    def write():
        insert("a")
        for ended in errors:
            raise ended

    await ledger.write(write)
    assert await stored() == ["a"]


async def test_what_cannot_be_prepared_while_the_database_is_away_is_prepared_again(ledger, monkeypatch):
    monkeypatch.setattr(ledgers, "FIRST_PAUSE", 0.01)
    errors = iter([OperationalError("away")])

    def prepare():
        for error in errors:
            raise error
        return "a"

    assert await ledger.write(insert, prepare=prepare) == "a"
    assert await stored() == ["a"]


async def test_a_write_that_keeps_failing_keeps_no_other_waiting(ledger, caplog):
    failing = True

    def fail():
        insert("half")
        if failing:
            raise OperationalError("out of memory")
        return "late"

    gate = Gate(ledger)
    await gate.entered.wait()
    writes = [asyncio.ensure_future(ledger.write(write)) for write in (lambda: insert("a"), fail, lambda: insert("b"))]
    await asyncio.sleep(0)
    gate.opened.set()
    async with asyncio.timeout(30):
        assert (await writes[0], await writes[2]) == ("a", "b")
        for n in range(5):
            assert await ledger.write(lambda n=n: insert(str(n))) == str(n)
        assert not writes[1].done()
        failing = False
        assert await writes[1] == "late"
    assert await stored() == ["a", "b", "0", "1", "2", "3", "4", "half"]
    assert "no other waits for it" in caplog.text
    await until(lambda: ledger._spare is None)  # the spare thread is not kept


async def test_closing_waits_for_what_is_tried_by_itself():
    ledger = WorkerLedger()
    errors = iter([OperationalError("one"), OperationalError("two")])

    def write():
        for error in errors:
            raise error
        return insert("a")

    writing = asyncio.ensure_future(ledger.write(write))
    await until(lambda: ledger._beside)
    await ledger.close()
    assert await writing == "a"


async def test_while_no_transaction_can_begin_one_line_says_so_and_not_one_for_each_run(ledger, caplog):
    await ledger.write(give_up_at_once)
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    gate = Gate(ledger)
    await gate.entered.wait()
    writes = [asyncio.ensure_future(ledger.write(lambda n=n: insert(str(n)))) for n in range(20)]
    await asyncio.sleep(0)
    ledger._thread.submit(other.execute, "BEGIN IMMEDIATE")  # after the gate's transaction, and before theirs
    gate.opened.set()
    await until(lambda: "does not take writes" in caplog.text)
    other.execute("COMMIT")
    other.close()
    assert await asyncio.gather(*writes) == [str(n) for n in range(20)]
    assert len(caplog.records) < 10


async def test_the_pauses_between_two_tries_grow_up_to_a_limit(ledger, caplog, monkeypatch):
    monkeypatch.setattr(ledgers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(ledgers, "LAST_PAUSE", 0.03)
    tries = iter(
        [OperationalError("one"), OperationalError("two"), OperationalError("three"), OperationalError("four")]
    )

    def write():
        for error in tries:
            raise error
        return insert("a")

    assert await ledger.write(write) == "a"
    assert [record.args[1] for record in caplog.records] == [0.01, 0.02, 0.03, 0.03]


async def test_a_write_that_the_database_refuses_for_ever_is_given_up(ledger, monkeypatch):
    monkeypatch.setattr(ledgers, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(WorkerLedger, "patience", 0.05)

    def refused():
        raise OperationalError("max_allowed_packet")

    results = await write_together(ledger, lambda: insert("before"), refused, lambda: insert("after"))
    assert [str(result) for result in results] == ["before", "max_allowed_packet", "after"]
    assert await stored() == ["before", "after"]


async def test_a_good_connection_stays_open(ledger):
    assert await ledger.write(lambda: connection.connection) is await ledger.write(lambda: connection.connection)


# Closing


async def test_closing_finishes_what_waits(monkeypatch):
    monkeypatch.setattr(ledgers, "MOST_WRITES", 1)
    ledger = WorkerLedger()
    writing = [asyncio.ensure_future(ledger.write(lambda n=n: insert(str(n)))) for n in range(3)]
    await asyncio.sleep(0)
    await ledger.close()
    assert [await write for write in writing] == ["0", "1", "2"]


async def test_closing_finishes_what_waits_however_many_transactions_that_takes(monkeypatch):
    monkeypatch.setattr(ledgers, "MOST_WRITES", 1)
    ledger = WorkerLedger()
    gate = Gate(ledger)
    await gate.entered.wait()
    writing = [asyncio.ensure_future(ledger.write(lambda n=n: insert(str(n)))) for n in range(8)]
    closing = asyncio.ensure_future(ledger.close())
    await asyncio.sleep(0)  # a turn of the loop: closing has begun, and waits
    gate.opened.set()
    async with asyncio.timeout(20):
        await closing
        assert [await write for write in writing] == [str(n) for n in range(8)]


async def test_closing_ends_the_thread_and_its_connection():
    ledger = WorkerLedger()
    mine = await ledger.write(lambda: (threading.current_thread(), connection.connection))
    await ledger.close()
    thread, database = mine
    assert not thread.is_alive()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


async def test_a_ledger_that_was_never_used_closes():
    await WorkerLedger().close()
