"""Connections of threads that live as long as their process, and their time limits."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, close_old_connections, connection, connections

from taskapi.runs import LEASE
from taskapi.store.database import FROZEN_AFTER, in_database, keep_connections
from taskapi.store.silence import SILENT_AFTER

pytestmark = pytest.mark.django_db(transaction=True)


def connected():
    connection.ensure_connection()
    return connection.connection


def test_a_good_connection_outlives_the_age_at_which_a_request_would_end_it():
    first = connected()
    connection.close_at = 0  # long ago
    keep_connections()
    close_old_connections()
    assert connected() is first


def test_a_connection_that_is_of_no_use_any_more_is_closed(monkeypatch):
    first = connected()
    connection.errors_occurred = True
    monkeypatch.setattr(connection, "is_usable", lambda: False)  # as after the server's restart
    keep_connections()
    assert connected() is not first


def test_a_connection_is_not_opened_to_be_kept():
    connection.close()
    keep_connections()
    assert connection.connection is None


async def test_a_function_is_called_on_the_databases_one_thread():
    threads = {await in_database(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_it_is_given_its_arguments_and_gives_back_its_result():
    assert await in_database(divmod, 7, 2) == (3, 1)
    assert await in_database(int, "11", base=2) == 3


async def test_its_error_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        await in_database(divmod, 1, 0)


async def test_its_connection_is_kept_from_one_call_to_the_next():
    assert await in_database(connected) is await in_database(connected)


# The database was restarted, and the connection is dead


@pytest.fixture
async def restart():
    """Break the connection of this thread, as a restart of the database does."""

    def restart():
        dead = connection.connection
        connections["default"].is_usable = lambda: connection.connection is not dead

    await in_database(connected)  # it was opened before the restart
    yield restart
    await in_database(lambda: vars(connections["default"]).pop("is_usable", None))  # the thread outlives the test


async def test_a_function_is_called_again_where_it_found_its_connection_dead(restart):
    used = []

    def function():
        used.append(connected())
        if len(used) == 1:
            restart()
            raise OperationalError("server closed the connection unexpectedly")
        return "done"

    assert await in_database(function) == "done"
    assert len(used) == 2
    assert used[0] is not used[1]


async def test_a_function_that_fails_on_a_good_connection_is_called_once():
    used = []

    def function():
        used.append(connected())
        raise OperationalError("database is locked")

    with pytest.raises(OperationalError, match="locked"):
        await in_database(function)
    assert len(used) == 1


async def test_a_database_that_stays_away_is_the_callers_error(restart):
    calls = []

    def function():
        calls.append(connected())
        restart()
        raise OperationalError("no route to host")

    with pytest.raises(OperationalError, match="no route"):
        await in_database(function)
    assert len(calls) == 2


def test_a_transaction_of_a_worker_lasts_no_longer_than_a_lease_once_it_is_frozen():
    assert timedelta(milliseconds=FROZEN_AFTER) == LEASE


def test_a_silent_database_is_given_up_after_the_length_of_a_lease():
    assert timedelta(seconds=SILENT_AFTER) == LEASE
