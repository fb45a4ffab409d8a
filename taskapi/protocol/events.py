"""Sequence numbers, and the events that carry them.

`seq` grows over the life of a run. An event has the same `seq` if it is passed on as it happens and if it is made
later from the row. So each attempt counts in a range of its own. Each report of an attempt takes one number for each
message, and then one for each thing that the row can say, even if that has not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from taskapi.protocol.encoding import encode
from taskapi.protocol.representation import represent
from taskapi.protocol.states import Status

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

SEQ_SPAN = 10**9  # an attempt's range: 2,000 reports a second would last for a day
SEQ_STATUS, SEQ_TARGET, SEQ_PROGRESS, SEQ_FINISHED = -3, -2, -1, 0  # from the report's last number
SEQ_STATE = 4  # how many numbers follow the messages

_RUNNING = Status.RUNNING.value

OMITTED = object()  # the body of a message that is known not to fit into a frame


def first_seq(attempt: int) -> int:
    """The number before the first of an attempt."""
    return attempt * SEQ_SPAN


def begin_seq(attempt: int) -> int:
    """The number of an attempt's first event, which says that it has begun."""
    return attempt * SEQ_SPAN + SEQ_STATE + SEQ_STATUS


class Event(NamedTuple):
    """One event: its number and its text, encoded once for all receivers."""

    seq: int
    text: str


def begun_event(uuid: UUID | str, attempt: int) -> Event:
    """The attempt has begun. This is its first event."""
    return status_event(uuid, attempt, begin_seq(attempt), _RUNNING)


# Each writes its own dict: these are encoded for every report of every run.


def status_event(uuid: UUID | str, attempt: int, seq: int, status: str) -> Event:
    return Event(seq, encode({"type": "status", "uuid": str(uuid), "attempt": attempt, "seq": seq, "status": status}))


def target_event(uuid: UUID | str, attempt: int, seq: int, target: int | None) -> Event:
    return Event(seq, encode({"type": "target", "uuid": str(uuid), "attempt": attempt, "seq": seq, "target": target}))


def progress_event(uuid: UUID | str, attempt: int, seq: int, progress: int | None, target: int | None) -> Event:
    frame = {
        "type": "progress", "uuid": str(uuid), "attempt": attempt, "seq": seq, "progress": progress, "target": target
    }  # fmt: skip
    return Event(seq, encode(frame))


def message_event(uuid: UUID | str, attempt: int, seq: int, index: int, message: Any) -> Event:
    frame = {"type": "message", "uuid": str(uuid), "attempt": attempt, "seq": seq, "index": index}
    if message is OMITTED:
        frame["omitted"] = True
    else:
        frame["message"] = message
    return Event(seq, encode(frame))


def finished_event(info: TaskInfo) -> Event:
    """The run has ended. This is its last event."""
    task = represent(info, inputs=False)  # the follower has them already, and they may be as large as the outputs
    head = {"type": "finished", "uuid": str(info.uuid), "attempt": info.attempt, "seq": info.seq}
    return Event(info.seq, encode({**head, "status": info.status, "task": task}))
