"""The frames of a client, and what they are answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from taskapi.exceptions import ProtocolError
from taskapi.protocol.bounds import KEY_LENGTH, REF_LENGTH, TASK_LENGTH
from taskapi.protocol.encoding import SAFE_INTEGER, decode

SUBPROTOCOL = "taskapi.v1"


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
    """Stop following a run."""

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
        data = decode(text)
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
    parser = PARSERS.get(kind)
    if parser is None:
        expected = ", ".join(PARSERS)
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
    """The fields of a frame. Each method reads one, and refuses a wrong value."""

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


PARSERS: dict[str, Callable[[_Fields], Frame]] = {
    "run": _parse_run,
    "subscribe": lambda fields: Subscribe(fields.ref, fields.uuid(), fields.after()),
    "unsubscribe": lambda fields: Unsubscribe(fields.ref, fields.uuid()),
    "cancel": lambda fields: Cancel(fields.ref, fields.uuid()),
    "ping": lambda fields: Ping(fields.ref),
}


def reply(kind: str, ref: str | None, **fields: Any) -> dict[str, Any]:
    """The answer to a client frame, with its `ref` if it had one."""
    return {"type": kind, **({} if ref is None else {"ref": ref}), **fields}


def refusal(why: ProtocolError, **fields: Any) -> dict[str, Any]:
    """The `error` frame that says why something was refused."""
    also = {"status": why.status, "reason": why.reason}
    said = {name: value for name, value in also.items() if value is not None}
    return reply("error", why.ref, **fields, code=why.code, **said, detail=why.detail)
