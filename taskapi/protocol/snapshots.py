"""The first frame of a subscription: the run as it is, with as many messages as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from taskapi.protocol.encoding import byte_size, encode
from taskapi.protocol.events import OMITTED
from taskapi.protocol.fitting import fit
from taskapi.protocol.representation import represent

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

SHOWN_BYTES = 256 * 1024  # of the messages in a snapshot: 9 s on a line of 30 KB/s; the others follow


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is recorded; the body is OMITTED if no frame can hold it."""

    index: int
    attempt: int
    seq: int
    body: Any


class Snapshot(NamedTuple):
    """The text of the frame, how many messages its reader knows then, and up to which `seq`."""

    text: str
    known: int
    seq: int


def snapshot(answer: dict[str, Any], info: TaskInfo, after: int, messages: Sequence[Message], limit: int) -> Snapshot:
    """The answer with the run, and with those of the messages that fit: they are the next past the first `after`.

    If some messages are left for later, its `seq` is that of the last message in it, so that all that follows has a
    higher one. If that message is of an earlier attempt, the frame shows that attempt.
    """
    frame, text = fit({**answer, "task": represent(info, [])}, limit)
    known = min(after, info.message_count)
    if known == info.message_count or not messages:
        return Snapshot(text, known, info.seq)
    count = _how_many_fit(messages, min(limit - byte_size(text), SHOWN_BYTES))
    shown = _with_messages(frame, info, known, messages[0], messages[:count])
    if byte_size(shown.text) > limit:  # one has a lone surrogate, and the whole frame is written in escapes
        shown = _with_messages(frame, info, known, messages[0], [])
    return shown


def _with_messages(
    frame: dict[str, Any], info: TaskInfo, known: int, next_one: Message, shown: Sequence[Message]
) -> Snapshot:
    known += len(shown)
    task = {**frame["task"], "messages": [message.body for message in shown]}
    if known < info.message_count:
        task["seq"] = shown[-1].seq if shown else next_one.seq - 1
        attempt = (shown[-1] if shown else next_one).attempt
        if attempt < info.attempt:
            omitted = [name for name in task.pop("omitted", ()) if name not in _NOT_YET]
            task |= {**_NOT_YET, "attempt": attempt, **({"omitted": omitted} if omitted else {})}
    return Snapshot(encode({**frame, "task": task}), known, task["seq"])


# What a reader knows of an attempt of which it has heard some messages and nothing else.
_NOT_YET = {"status": "running", "progress": None, "target": None, "outputs": None, "error": None, "finished": None}


def _how_many_fit(messages: Sequence[Message], room: int) -> int:
    for number, message in enumerate(messages):
        if message.body is OMITTED:
            return number
        room -= byte_size(encode(message.body)) + 1  # a comma
        if room < 0:
            return number
    return len(messages)
