"""The one place where a status changes: compare and set on the row of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import OperationalError

from taskapi.models import TaskInfo
from taskapi.protocol.states import MOVES, Status
from taskapi.store import rows

MOST_TRIES = 100  # to change a run that others change too; from the second try on, the row has been read again


def move(info: TaskInfo, to: Status, **changes: Any) -> bool:
    """Give the run another status; False, and nothing changes, if the row is not as `info` knows it any more."""
    if to not in MOVES[Status(info.status)]:
        return False
    changes["status"] = to.value
    if not rows.change(as_known(info) | {"cancel_requested": info.cancel_requested}, changes):
        return False
    for name, value in changes.items():
        setattr(info, name, value)
    return True


def as_known(info: TaskInfo) -> dict[str, Any]:
    """The row, if it is as `info` knows it: what is compared before something is set."""
    return {"pk": info.pk, "status": info.status, "attempt": info.attempt}


def refresh(info: TaskInfo, *, lock: bool = False) -> None:
    """Read the run again; DoesNotExist if it was deleted."""
    read = rows.read({"pk": info.pk}, lock=lock)
    if read is None:
        raise TaskInfo.DoesNotExist(f"The run {info.uuid} was deleted.")
    for field in TaskInfo._meta.concrete_fields:  # noqa: SLF001 - Django's public name for it
        if field.attname != "user_id":  # it never changes, and setting it would forget a user that was read
            setattr(info, field.attname, vars(read)[field.attname])  # as it is read: nothing is loaded here


def tries(info: TaskInfo) -> Iterator[int]:
    """MOST_TRIES tries to change a run that others change meanwhile. Then OperationalError, which a ledger retries."""
    yield from range(MOST_TRIES)
    raise OperationalError(f"The run {info.uuid} had changed each of the {MOST_TRIES} times that it was to be changed.")
