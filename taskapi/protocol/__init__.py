"""The wire: client frames in, events and representations out. Pure: no Django, no I/O.

docs/protocol.md is the normative text; tests/frames/ holds a golden frame of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, combinations
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


def byte_size(text: str) -> int:
    """How many bytes the text takes on the wire."""
    return len(text) if text.isascii() else len(text.encode())


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


# Frames that fit
#
# A server has a limit to what it sends: daphne raises for a larger frame, and its client would wait for ever. So what
# does not fit is left out and named, and the client fetches it over REST. What is counted is the UTF-8 of the text.

LEAST_FRAME = 4096  # bytes: a frame without all that can be left out is smaller, whatever its names and its `ref`
SHOWN_BYTES = 256 * 1024  # of the messages in a first frame: on a line of 30 KB/s it is there in 9 s; the others follow
OMITTABLE = ("inputs", "outputs", "error")  # of a representation; the first is what a client is likeliest to know
OMITTED = object()  # in place of a message that is known not to fit
_NAMING = 64  # bytes: what `"omitted":[…]` takes at most

TOO_LONG = "What is wrong takes more than a frame may have. The same call over REST is answered with all of it."


def within(text: str, limit: int) -> str:
    """The text of a frame, or of what is left of the frame where that has more than `limit` bytes."""
    if 4 * len(text) <= limit or byte_size(text) <= limit:  # no character takes more than 4
        return text
    return fit(json.loads(text), limit)[1]


def fit(frame: dict[str, Any], limit: int) -> tuple[dict[str, Any], str]:
    """The frame and its text, which has `limit` bytes at most: what does not fit is left out, and named."""
    text = encode(frame)
    excess = byte_size(text) - limit
    if excess <= 0:
        return frame, text
    if "task" in frame:
        frame = {**frame, "task": _without(frame["task"], excess)}
    elif frame["type"] == "message":
        frame = {**{name: value for name, value in frame.items() if name != "message"}, "omitted": True}
    else:
        frame = {**frame, "detail": TOO_LONG, "omitted": ["detail"]}
    return frame, encode(frame)


def _without(task: dict[str, Any], excess: int) -> dict[str, Any]:
    """The representation without so many of its fields that it is smaller by `excess` bytes; as few as possible."""
    sizes = {name: byte_size(encode(task[name])) for name in OMITTABLE if name in task}
    choices = chain.from_iterable(combinations(sizes, count) for count in range(1, len(sizes) + 1))
    enough = (names for names in choices if sum(sizes[name] for name in names) >= excess + _NAMING)
    left_out = {*task.get("omitted", ()), *next(enough, tuple(sizes))}
    kept = {name: value for name, value in task.items() if name not in left_out}
    return {**kept, "omitted": [name for name in OMITTABLE if name in left_out]}


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is recorded; the body is OMITTED where no frame can hold it."""

    index: int
    attempt: int
    seq: int
    body: Any


class First(NamedTuple):
    """The frame that shows a run: its text, how many messages whoever reads it knows then, and up to which `seq`."""

    text: str
    known: int
    seq: int


def first_frame(answer: dict[str, Any], info: TaskInfo, after: int, messages: Sequence[Message], limit: int) -> First:
    """The answer with the run, and with those of the messages that fit: they are the next past the first `after`.

    Where it has not all that there are, its `seq` is that of the last one which it has, so that whatever
    follows has a higher one; and where that one is of an earlier attempt, so is what the frame shows.
    """
    frame, text = fit({**answer, "task": represent(info, [])}, limit)
    known = min(after, info.message_count)
    if known == info.message_count or not messages:
        return First(text, known, info.seq)
    count = _how_many_fit(messages, min(limit - byte_size(text), SHOWN_BYTES))
    first = _with_messages(frame, info, known, messages[0], messages[:count])
    if byte_size(first.text) > limit:  # one has a lone surrogate, and the whole frame is written in escapes
        first = _with_messages(frame, info, known, messages[0], [])
    return first


def _with_messages(
    frame: dict[str, Any], info: TaskInfo, known: int, next_one: Message, shown: Sequence[Message]
) -> First:
    known += len(shown)
    task = {**frame["task"], "messages": [message.body for message in shown]}
    if known < info.message_count:
        task["seq"] = shown[-1].seq if shown else next_one.seq - 1
        attempt = (shown[-1] if shown else next_one).attempt
        if attempt < info.attempt:
            omitted = [name for name in task.pop("omitted", ()) if name not in _NOT_YET]
            task |= {**_NOT_YET, "attempt": attempt, **({"omitted": omitted} if omitted else {})}
    return First(encode({**frame, "task": task}), known, task["seq"])


# What is known of an attempt that still has something to say, by who has heard its messages alone.
_NOT_YET = {"status": "running", "progress": None, "target": None, "outputs": None, "error": None, "finished": None}


def _how_many_fit(messages: Sequence[Message], room: int) -> int:
    for number, message in enumerate(messages):
        if message.body is OMITTED:
            return number
        room -= byte_size(encode(message.body)) + 1  # a comma
        if room < 0:
            return number
    return len(messages)


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

    def within(self, limit: int) -> Report:
        """The same in events of at most `limit` bytes each."""
        if all(4 * len(event.text) <= limit for event in self.events):
            return self
        return self._replace(events=[event._replace(text=within(event.text, limit)) for event in self.events])

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
    said = {"omitted": True} if message is OMITTED else {"message": message}
    return _event("message", uuid, attempt, seq, index=index, **said)


def finished_event(info: TaskInfo) -> Event:
    task = represent(info)
    del task["inputs"]  # which the follower has had, and which may be as large as the outputs
    fields = {"status": info.status, "task": task}
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
