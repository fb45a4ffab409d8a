"""The wire: client frames in, events and representations out. Pure: no Django, no I/O.

docs/protocol.md is the normative text; tests/frames/ holds a golden frame of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from taskapi.exceptions import ProtocolError

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

SUBPROTOCOL = "taskapi.v1"

REF_LENGTH = 64  # characters of a client's `ref`
KEY_LENGTH = 255  # characters of an idempotency key, here and in the REST header
TASK_LENGTH = 255  # characters of a task's name
MAX_DEPTH = 64  # lists and objects inside one another; Python gives up at some hundreds
SAFE_INTEGER = 2**53 - 1  # the largest int that a JavaScript client reads exactly


# JSON

# Compact; "\u2028" and the like travel as they are. NaN and infinities are not JSON.
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_ascii_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(value: Any) -> str:
    """JSON text that can be sent; a lone surrogate, which UTF-8 has no bytes for, goes as its escape."""
    text = _encoder.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ascii_encoder.encode(value)
    return text


def is_too_deep(value: Any) -> bool:
    """Whether a JSON value has lists and objects inside one another past MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for outer in level if isinstance(outer, (list, dict)) for item in _items(outer)]
        if not level:
            return False
    return True


def _items(outer: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON.")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


# Client frames


@dataclass(frozen=True, slots=True)
class Run:
    """Start a run and follow it, with the messages past the first `after`."""

    ref: str | None
    task: str
    inputs: Any
    idempotency_key: str | None = None
    after: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a run, with the messages past the first `after`."""

    ref: str | None
    uuid: UUID
    after: int = 0


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Follow a run no longer."""

    ref: str | None
    uuid: UUID


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask a run to stop."""

    ref: str | None
    uuid: UUID


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a pong."""

    ref: str | None


Frame = Run | Subscribe | Unsubscribe | Cancel | Ping


def parse(text: str | None) -> Frame:
    """The client frame that `text` holds (None: a binary frame), or ProtocolError with a sentence."""
    if text is None:
        raise ProtocolError("invalid_json", "Frames are JSON text; this one is binary.")
    try:
        data = _decoder.decode(text)
    except RecursionError:
        raise ProtocolError("invalid_json", "The frame is nested too deeply.") from None
    except ValueError as error:
        raise ProtocolError("invalid_json", f"The frame is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ProtocolError("invalid_frame", "A frame is a JSON object.")
    ref = _ref(data)
    kind = data.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("invalid_frame", "A frame has a `type`, a string.", ref)
    parser = _PARSERS.get(kind)
    if parser is None:
        expected = ", ".join(_PARSERS)
        raise ProtocolError("unknown_type", f"Unknown type {_short(kind)}. Expected one of: {expected}.", ref)
    return parser(_Fields(data, ref))


def _ref(data: dict[str, Any]) -> str | None:
    ref = data.get("ref")
    if ref is not None and (not isinstance(ref, str) or len(ref) > REF_LENGTH):
        raise ProtocolError("invalid_frame", f"`ref` is a string of at most {REF_LENGTH} characters.")
    return ref


def _short(value: str) -> str:
    return repr(value if len(value) <= REF_LENGTH else value[:REF_LENGTH] + "…")


class _Fields(NamedTuple):
    """A frame's fields, each asked for by what it has to be."""

    data: dict[str, Any]
    ref: str | None

    def wrong(self, expected: str) -> ProtocolError:
        return ProtocolError("invalid_frame", expected, self.ref)

    def text(self, name: str, length: int) -> str:
        value = self.data.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= length:
            raise self.wrong(f"`{name}` is a string of 1 to {length} characters.")
        return value

    def uuid(self) -> UUID:
        try:
            return UUID(self.data["uuid"])
        except (KeyError, ValueError, AttributeError, TypeError):
            raise self.wrong("`uuid` is the uuid of a run.") from None

    def after(self) -> int:
        value = self.data.get("after", 0)
        if type(value) is not int or not 0 <= value <= SAFE_INTEGER:
            raise self.wrong("`after` is how many messages are known: an integer of 0 or more.")
        return value


def _parse_run(fields: _Fields) -> Run:
    key = None
    if fields.data.get("idempotency_key") is not None:
        key = fields.text("idempotency_key", KEY_LENGTH)
    task = fields.text("task", TASK_LENGTH)
    return Run(fields.ref, task, fields.data.get("inputs", {}), key, fields.after())


_PARSERS: dict[str, Callable[[_Fields], Frame]] = {
    "run": _parse_run,
    "subscribe": lambda fields: Subscribe(fields.ref, fields.uuid(), fields.after()),
    "unsubscribe": lambda fields: Unsubscribe(fields.ref, fields.uuid()),
    "cancel": lambda fields: Cancel(fields.ref, fields.uuid()),
    "ping": lambda fields: Ping(fields.ref),
}


# Server frames


def reply(kind: str, ref: str | None, **fields: Any) -> dict[str, Any]:
    """The answer to a client frame: with its `ref`, where it had one."""
    return {"type": kind, **({} if ref is None else {"ref": ref}), **fields}


# Sequence numbers
#
# `seq` grows over a run's life, and an event has the same `seq` whether it is passed on as it happens or
# made up again from the row. So each attempt counts in a range of its own, and each report of an attempt
# takes one number a message and then one for each thing that the row can say, used or not.

SEQ_SPAN = 10**9  # an attempt's range: 2,000 reports a second would last for a day
SEQ_STATUS, SEQ_TARGET, SEQ_PROGRESS, SEQ_FINISHED = -3, -2, -1, 0  # from the report's last number
SEQ_STATE = 4  # how many numbers follow the messages


def first_seq(attempt: int) -> int:
    """The number before the first of an attempt."""
    return attempt * SEQ_SPAN


class Event(NamedTuple):
    """One event: its number and its text, encoded once for all who will receive it."""

    seq: int
    text: str


class Report(NamedTuple):
    """What writes of the row said, as it travels to those who follow the run.

    `seq` is the row's after them, and `since` the row's before them: whoever has not heard up to there asks the
    row first. `known` is how many messages there were after them.
    """

    seq: int
    since: int
    known: int
    finished: bool
    events: Sequence[Event]

    def then(self, later: Report) -> Report:
        """Both in one."""
        return later._replace(since=self.since, events=[*self.events, *later.events])


def status_event(uuid: UUID, attempt: int, seq: int, status: str) -> Event:
    return _event("status", uuid, attempt, seq, status=status)


def target_event(uuid: UUID, attempt: int, seq: int, target: int | None) -> Event:
    return _event("target", uuid, attempt, seq, target=target)


def progress_event(uuid: UUID, attempt: int, seq: int, progress: int | None, target: int | None) -> Event:
    return _event("progress", uuid, attempt, seq, progress=progress, target=target)


def message_event(uuid: UUID, attempt: int, seq: int, index: int, message: Any) -> Event:
    return _event("message", uuid, attempt, seq, index=index, message=message)


def finished_event(info: TaskInfo) -> Event:
    fields = {"status": info.status, "task": represent(info)}
    return _event("finished", info.uuid, info.attempt, info.seq, **fields)


def _event(kind: str, uuid: UUID, attempt: int, seq: int, **fields: Any) -> Event:
    return Event(seq, encode({"type": kind, "uuid": str(uuid), "attempt": attempt, "seq": seq, **fields}))


def represent(info: TaskInfo, messages: Sequence[Any] | None = None) -> dict[str, Any]:
    """The one shape of a run on the wire; without `messages`, that key is left out."""
    return {
        "uuid": str(info.uuid),
        "task": info.task,
        "status": str(info.status),
        "progress": info.progress,
        "target": info.target,
        "inputs": info.inputs,
        "outputs": info.outputs,
        **({} if messages is None else {"messages": list(messages)}),
        "message_count": info.message_count,
        "error": info.error,
        "attempt": info.attempt,
        "seq": info.seq,
        "cancel_requested": info.cancel_requested,
        "created": timestamp(info.created),
        "started": timestamp(info.started),
        "finished": timestamp(info.finished),
    }


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, as DRF writes it."""
    if moment is None:
        return None
    # a naive one (USE_TZ = False) is in the zone of the process, which Django has set
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
