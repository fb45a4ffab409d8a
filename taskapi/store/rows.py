"""The statements that every run needs: its row is inserted, read, or changed by compare and set.

The ORM builds the SQL of a query each time. That takes ten times as long as SQLite needs to execute it. Here the SQL is
built once for each shape; the fields of the model still convert the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connections, router, transaction
from django.db.models import Field
from django.db.models.functions import Now

from taskapi.models import TaskInfo


class Clock(Now):
    """The database's clock, in the form in which fields keep moments, so that it can be compared with them.

    MySQL's own clock is in the time zone of the session, which Django does not set. SQLite's is in UTC.
    """

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        zone = connection.timezone_name
        if zone == "UTC":
            return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)
        # CONVERT_TZ gives NULL if MySQL was not given its tables of time zones.
        there = f"COALESCE(CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', '{zone}'), CURRENT_TIMESTAMP(6))"
        return self.as_sql(compiler, connection, template=there, **context)

    def as_sqlite(self, compiler: Any, connection: Any, *, modifiers: str = "", **context: Any) -> Any:
        zone = "" if settings.USE_TZ else ", 'localtime'"
        here = f"STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'NOW'{zone}{modifiers})"
        return self.as_sql(compiler, connection, template=here, **context)


class SQLiteLater(Clock):
    """`Clock() + by` on SQLite. For that sum Django has SQLite call Python, which costs each run 7 µs."""

    def __init__(self, by: timedelta) -> None:
        super().__init__()
        self.by = by

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        modifiers = f", '{self.by.total_seconds():+f} seconds'"
        return super().as_sqlite(compiler, connection, modifiers=modifiers, **context)


class LeaseClock(Now):
    """The database's clock without summer time: only for values that are written by it and compared with it."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


CLOCK = Clock()
NOW = LeaseClock()  # for leases: the field `renewed`
INSERTED_TOGETHER = 1_000  # rows in one statement, at most: it is built in memory
BY_CLOCK = ("renewed", "expires")  # the fields that may be set to NOW, or to a moment `Later`


class Later(NamedTuple):
    """A value to be written: so long after now, by the database's clock."""

    by: timedelta


_meta = TaskInfo._meta  # noqa: SLF001 - Django's public name for it


def insert(info: TaskInfo) -> None:
    """Insert the row of a new run, and give the instance its id. As with `bulk_create`, no signals are sent."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    returning = connection.features.can_return_columns_from_insert
    values = {
        field.name: field.get_db_prep_save(value, connection)
        for field in _fields_but_the_id()
        if (value := field.pre_save(info, True)) is not None  # 11 of 28 fields of a new run: their columns become NULL
    }
    with connection.cursor() as cursor:
        cursor.execute(_insert(alias, tuple(values), returning), list(values.values()))
        if returning:
            (info.pk,) = cursor.fetchone()
        else:  # MySQL
            info.pk = connection.ops.last_insert_id(cursor, _meta.db_table, _meta.pk.name)
    info._state.adding, info._state.db = False, alias  # noqa: SLF001 - Django's own, for code that makes instances


def insert_all(infos: Sequence[TaskInfo]) -> None:
    """Insert the rows of new runs, in their order, in one transaction; as `insert`."""
    alias = router.db_for_write(TaskInfo)
    with transaction.atomic(alias):
        if connections[alias].features.can_return_rows_from_bulk_insert:
            TaskInfo.objects.using(alias).bulk_create(infos, INSERTED_TOGETHER)
        else:  # MySQL tells the id of one row
            for info in infos:
                insert(info)


def read(where: Mapping[str, Any], *, lock: bool = False) -> TaskInfo | None:
    """The first row whose fields have these values, from the database that is written to: a replica may lag.

    `lock`: lock it until the end of the transaction, and read it as it is now. Otherwise a transaction that is
    REPEATABLE READ sees it as it was when the transaction began.
    """
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    statement = _select(alias, tuple(where), lock and connection.features.has_select_for_update)
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, _values(where, connection))
        found = cursor.fetchone()
    if found is None:
        return None
    values = list(found)
    for place, convert, expression in statement.converters:
        values[place] = convert(values[place], expression, connection)
    return TaskInfo.from_db(alias, statement.names, values)


def change(where: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Change the row whose fields have these values; False if there is none (any more)."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    statement = _update(alias, tuple(where), tuple(changes), _delays(changes))
    values = [_prepared(_field(name), changes[name], connection) for name in statement.names]
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, [*values, *statement.delays, *_values(where, connection)])
        changed: int = cursor.rowcount
    return changed > 0


def now() -> datetime:
    """The time by the database's clock. It costs a statement."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    with connection.cursor() as cursor:
        sql, values = _compile(alias, CLOCK)
        cursor.execute(f"SELECT {sql}", values)
        (value,) = cursor.fetchone()
    for convert in connection.ops.get_db_converters(CLOCK):
        value = convert(value, CLOCK, connection)
    moment: datetime = value
    return moment


@cache
def _insert(alias: str, names: tuple[str, ...], returning: bool) -> str:
    columns = [_column(alias, _field(name)) for name in names]
    places = ", ".join("%s" for _ in columns)
    sql = f"INSERT INTO {_table(alias)} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - our own names
    return f"{sql} RETURNING {_column(alias, _meta.pk)}" if returning else sql


@cache
def _fields_but_the_id() -> list[Field[Any, Any]]:
    return [field for field in _meta.concrete_fields if not field.primary_key]


class _Select(NamedTuple):
    sql: str
    names: list[str]
    converters: list[tuple[int, Any, Any]]  # place of the value, function, expression


@cache
def _select(alias: str, where: tuple[str, ...], lock: bool) -> _Select:
    connection = connections[alias]
    columns = [field.get_col(_meta.db_table) for field in _meta.concrete_fields]
    converters = [
        (place, convert, column)
        for place, column in enumerate(columns)
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    listed = ", ".join(_column(alias, field) for field in _meta.concrete_fields)
    sql = f"SELECT {listed} FROM {_table(alias)} WHERE {_equal(alias, where, ' AND ')}"  # noqa: S608 - our own names
    if lock:
        sql += f" {connection.ops.for_update_sql()}"
    return _Select(sql, [field.attname for field in _meta.concrete_fields], converters)


class _Update(NamedTuple):
    sql: str
    names: list[str]  # of the fields whose values are given; those that are set by the clock come after them
    delays: list[Any]  # the values in the expressions of these


@cache
def _update(
    alias: str, where: tuple[str, ...], names: tuple[str, ...], delays: tuple[tuple[str, timedelta | None], ...]
) -> _Update:
    by_clock = {name: _compile(alias, _by_clock(alias, delay)) for name, delay in delays}
    given = [name for name in names if name not in by_clock]
    parts = [_equal(alias, tuple(given), ", ")] if given else []
    parts += [f"{_column(alias, _field(name))} = {sql}" for name, (sql, _) in by_clock.items()]
    sql = f"UPDATE {_table(alias)} SET {', '.join(parts)} WHERE {_equal(alias, where, ' AND ')}"  # noqa: S608 - our own names
    return _Update(sql, given, [value for _, values in by_clock.values() for value in values])


def _delays(changes: Mapping[str, Any]) -> tuple[tuple[str, timedelta | None], ...]:
    """The fields that are set by the database's clock: how long after now, or None for the clock of leases."""
    return tuple(
        (name, value.by if isinstance(value, Later) else None)
        for name in BY_CLOCK
        if (value := changes.get(name)) is NOW or isinstance(value, Later)
    )


def _by_clock(alias: str, delay: timedelta | None) -> Any:
    if delay is None:
        return NOW
    return SQLiteLater(delay) if connections[alias].vendor == "sqlite" else CLOCK + delay


def _compile(alias: str, expression: Any) -> tuple[str, Any]:
    query = TaskInfo.objects.using(alias).query
    compiled: tuple[str, Any] = query.get_compiler(alias).compile(expression.resolve_expression(query))
    return compiled


def _prepared(field: Field[Any, Any], value: Any, connection: Any) -> Any:
    """The value as the driver takes it; None is NULL for each field, also for one of JSON."""
    return None if value is None else field.get_db_prep_save(value, connection)


def _equal(alias: str, names: tuple[str, ...], between: str) -> str:
    return between.join(f"{_column(alias, _field(name))} = %s" for name in names)


def _values(where: Mapping[str, Any], connection: Any) -> list[Any]:
    return [_field(name).get_db_prep_value(value, connection) for name, value in where.items()]


@cache
def _field(name: str) -> Field[Any, Any]:
    return _meta.pk if name == "pk" else _meta.get_field(name)  # type: ignore[return-value]


def _column(alias: str, field: Any) -> str:
    return connections[alias].ops.quote_name(field.column)


def _table(alias: str) -> str:
    return connections[alias].ops.quote_name(_meta.db_table)
