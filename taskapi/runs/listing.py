"""Runs in a list: some statements and some memory for a page, however many values and messages its runs have.

A value that is too large for a list is not read. It is left out of its run's item, and named there, as in a frame that
it does not fit into (taskapi.protocol.fitting).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from django.db import router
from django.db.models import Case, F, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce, Length

from taskapi.backends.attendance import hint_for
from taskapi.exceptions import StorageUnavailable
from taskapi.models import JSONTextField, TaskInfo, TaskMessage
from taskapi.protocol import OMITTABLE, represent
from taskapi.protocol.states import FINAL
from taskapi.storage import Kept

LISTED_BYTES = 32 * 1024  # of a value, or of all messages of a run, as the database keeps them: JSON in ASCII
LISTED_MESSAGES = 1_000  # of a run
NULL = len("null")


class Size(Length):
    """The bytes of a text in ASCII; PostgreSQL and SQLite know it without reading a text that is long."""

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="OCTET_LENGTH", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        if connection.Database.sqlite_version_info < (3, 43):
            return self.as_sql(compiler, connection, **context)
        return self.as_sql(compiler, connection, function="OCTET_LENGTH", **context)


def select(user: Any = None, *, tasks: Collection[str] = (), statuses: Collection[str] = ()) -> QuerySet[TaskInfo]:
    """Runs of that user, or of everybody; only those of these tasks and statuses, if any are named. `read` them."""
    found = TaskInfo.rows()
    if user is not None:
        found = found.filter(user=user.pk)
    if tasks:
        found = found.filter(task__in=[name for name in tasks if "\0" not in name])  # PostgreSQL takes no NUL
    if statuses and user is not None and not FINAL.isdisjoint(statuses):
        # Nearly all runs are final. The index of statuses has those of everybody, so no database is to choose it.
        found = found.alias(final_status=Coalesce("status", Value(""))).filter(final_status__in=statuses)
    elif statuses:
        found = found.filter(status__in=statuses)
    return _readable(found)


def _readable(found: QuerySet[TaskInfo]) -> QuerySet[TaskInfo]:
    sizes = {_size(name): Size(name) for name in OMITTABLE}
    values = {
        _value(name): Case(When(**{f"{_size(name)}__lte": LISTED_BYTES}, then=F(name)), output_field=JSONTextField())
        for name in OMITTABLE
    }
    return found.defer(*OMITTABLE, "traceback").annotate(**sizes).annotate(**values)


def read(selected: Iterable[TaskInfo]) -> list[TaskInfo]:
    """The selected runs with those of their values that a list shows. The others are read if they are asked for."""
    infos = list(selected)
    for info in infos:
        for name in OMITTABLE:
            if not _is_large(info, name):
                setattr(info, name, getattr(info, _value(name)))
    return infos


def read_again(infos: Sequence[TaskInfo]) -> list[TaskInfo]:
    """These runs, as they are now and as a list needs them, in the same order."""
    found = {info.pk: info for info in read(_readable(TaskInfo.rows().filter(pk__in=[info.pk for info in infos])))}
    return [found[info.pk] for info in infos if info.pk in found]  # some may have been deleted


def represent_all(infos: Sequence[TaskInfo]) -> list[dict[str, Any]]:
    """The representations of these runs, which were `read`; `omitted` names what is left out."""
    _load(infos)
    said = _messages([info for info in infos if info.message_count])
    return [_represent(info, said.get(info.pk) if info.message_count else []) for info in infos]


def _load(infos: Iterable[TaskInfo]) -> None:
    """Load what is in the storage and fits into a list. If the storage fails once, the list does without the rest."""
    with suppress(StorageUnavailable):
        for info in infos:
            info.load(*(name for name in OMITTABLE if not _is_large(info, name)))


def _represent(info: TaskInfo, messages: list[Any] | None) -> dict[str, Any]:
    left_out = [name for name in OMITTABLE if _is_large(info, name) or not info.is_loaded(name)]
    for name in left_out:
        setattr(info, name, None)  # else it would be read now
    info.hint = hint_for(info)
    shown = {name: value for name, value in represent(info, messages).items() if name not in left_out}
    if messages is None:
        left_out.append("messages")
    return {**shown, "omitted": left_out} if left_out else shown


def _messages(infos: Sequence[TaskInfo]) -> dict[int, list[Any]]:
    """The messages of each run by its id, up to the `message_count` of the instance; none of a run with too many."""
    counts = {info.pk: info.message_count for info in infos if info.message_count <= LISTED_MESSAGES}
    short = _that_say_little(counts)
    said: dict[int, list[Any]] = defaultdict(list)
    for pk, index, body in _log(short).order_by("run", "index").values_list("run", "index", "body"):
        if index < counts[pk]:  # not what was said since the run was read
            said[pk].append(body)
    return said


def _that_say_little(pks: Collection[int]) -> list[int]:
    sizes = _log(pks).order_by().values("run").annotate(size=Sum(Coalesce(Size("body"), NULL)))
    return list(sizes.filter(size__lte=LISTED_BYTES).values_list("run", flat=True))


def _log(pks: Collection[int]) -> QuerySet[TaskMessage]:
    log = TaskMessage.objects.using(router.db_for_write(TaskMessage))
    return log.filter(run__in=list(pks), index__lt=LISTED_MESSAGES)


def _is_large(info: TaskInfo, name: str) -> bool:
    listed = getattr(info, _value(name))
    if isinstance(listed, Kept):
        return listed.size > LISTED_BYTES
    return (getattr(info, _size(name)) or 0) > LISTED_BYTES


def _size(name: str) -> str:
    return f"{name}_size"


def _value(name: str) -> str:
    return f"{name}_listed"
