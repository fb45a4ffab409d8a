"""The statements that every run takes: its row, inserted, read, or changed by compare and set.

The ORM builds the SQL of a query anew each time, which takes ten times as long as SQLite needs to execute it.
Here it is built once for each shape; the fields of the model still convert the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from django.db import connections, router
from django.db.models import Field
from django.db.models.functions import Now

from taskapi.models import TaskInfo

NOW = Now()  # the database's clock
_meta = TaskInfo._meta  # noqa: SLF001 - Django's public name for it


def insert(info: TaskInfo) -> None:
    """Insert the row of a new run, and give the instance its id. No signals are sent, as with `bulk_create`."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    returning = connection.features.can_return_columns_from_insert
    values = [field.get_db_prep_save(field.pre_save(info, True), connection) for field in _fields_but_the_id()]
    with connection.cursor() as cursor:
        cursor.execute(_insert(alias, returning), values)
        if returning:
            (info.pk,) = cursor.fetchone()
        else:  # MySQL
            info.pk = connection.ops.last_insert_id(cursor, _meta.db_table, _meta.pk.name)
    info._state.adding, info._state.db = False, alias  # noqa: SLF001 - Django's own, for whoever makes instances


def read(where: Mapping[str, Any]) -> TaskInfo | None:
    """The first row whose fields have these values, from the database that is written to: a replica may lag."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    statement = _select(alias, tuple(where))
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
    """Change the row whose fields have these values; False where there is none (any more)."""
    alias = router.db_for_write(TaskInfo)
    connection = connections[alias]
    sql = _update(alias, tuple(where), tuple((name, value is NOW) for name, value in changes.items()))
    values = [_field(name).get_db_prep_save(value, connection) for name, value in changes.items() if value is not NOW]
    with connection.cursor() as cursor:
        cursor.execute(sql, values + _values(where, connection))
        changed: int = cursor.rowcount
    return changed > 0


@cache
def _insert(alias: str, returning: bool) -> str:
    columns = [_column(alias, field) for field in _fields_but_the_id()]
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
def _select(alias: str, where: tuple[str, ...]) -> _Select:
    connection = connections[alias]
    columns = [field.get_col(_meta.db_table) for field in _meta.concrete_fields]
    converters = [
        (place, convert, column)
        for place, column in enumerate(columns)
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    listed = ", ".join(_column(alias, field) for field in _meta.concrete_fields)
    sql = f"SELECT {listed} FROM {_table(alias)} WHERE {_equal(alias, where, ' AND ')}"  # noqa: S608 - our own names
    return _Select(sql, [field.attname for field in _meta.concrete_fields], converters)


@cache
def _update(alias: str, where: tuple[str, ...], changes: tuple[tuple[str, bool], ...]) -> str:
    now, _ = TaskInfo.objects.using(alias).query.get_compiler(alias).compile(NOW)
    settings = ", ".join(f"{_column(alias, _field(name))} = {now if is_now else '%s'}" for name, is_now in changes)
    return f"UPDATE {_table(alias)} SET {settings} WHERE {_equal(alias, where, ' AND ')}"  # noqa: S608 - our own names


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
