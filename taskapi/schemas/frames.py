"""The frames of the WebSocket, which docs/protocol.md describes. Server-sent events have the same events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from taskapi.protocol import KEY_LENGTH, REF_LENGTH, SUBPROTOCOL, TASK_LENGTH
from taskapi.protocol.states import FINAL, Status
from taskapi.schemas.parts import COUNT, TEXT, UUID, Schema, one_of, record, ref, said
from taskapi.schemas.refusals import ERROR_CODES

_REF = said({**TEXT, "maxLength": REF_LENGTH}, "The client's own mark; the answer has the same.")
_AFTER = said({**COUNT, "default": 0}, "How many messages of the run the client has.")
_INTEGER: Schema = {"type": ["integer", "null"]}

KEY: Schema = {**TEXT, "minLength": 1, "maxLength": KEY_LENGTH}
TASK_NAME: Schema = {**TEXT, "minLength": 1, "maxLength": TASK_LENGTH}


class Message(NamedTuple):
    """A kind of frame: what it says, and the kinds that answer it if a client sends it."""

    summary: str
    answers: tuple[str, ...] = ()


#: What a client sends, by the `type` of the frame.
CLIENT: Mapping[str, Message] = {
    "run": Message("Start a run, and follow it.", ("accepted", "error")),
    "subscribe": Message("Follow a run.", ("snapshot", "error")),
    "unsubscribe": Message("Stop following a run. The run goes on.", ("unsubscribed", "error")),
    "cancel": Message("Ask a run to stop.", ("cancelling", "error")),
    "ping": Message("Ask for a pong. It needs no authentication.", ("pong", "error")),
}

#: What the server answers.
ANSWERS: Mapping[str, Message] = {
    "accepted": Message("The run is recorded, and the socket follows it."),
    "snapshot": Message("The run as it is; events with a higher `seq` follow."),
    "unsubscribed": Message("The subscription has ended, if there was one."),
    "cancelling": Message("The request to stop is recorded."),
    "pong": Message("The answer to a ping."),
    "error": Message("The frame was not carried out. The socket stays open."),
}

#: What the server says of the runs that a socket follows.
EVENTS: Mapping[str, Message] = {
    "status": Message("An attempt begins, or the run waits for another attempt."),
    "target": Message("The progress at which the work is done."),
    "progress": Message("How far the work has come."),
    "message": Message("What the task says; every message arrives, once and in order."),
    "finished": Message("The end of the run: the last event of a subscription."),
}

CLOSE_CODES: Mapping[str, str] = {
    "1001": "The server is ending: connect again.",
    "4401": "The caller has changed since the handshake: connect again with the credentials that you have now.",
    "4406": f"The server speaks none of the subprotocols that the client names; it speaks {SUBPROTOCOL}.",
}


def frame(kind: str, properties: Mapping[str, Schema], optional: Collection[str] = (), **more: object) -> Schema:
    """A frame of that `type`, with a `ref` if its client gave one."""
    return record({"type": one_of([kind]), "ref": _REF, **properties}, ("ref", *optional), **more)


def run_frame(task: Schema, inputs: Schema, *, needs_inputs: bool) -> Schema:
    """A `run` frame for one task, or for any."""
    properties = {"task": task, "inputs": inputs, "idempotency_key": KEY, "after": _AFTER}
    optional = ("idempotency_key", "after") if needs_inputs else ("inputs", "idempotency_key", "after")
    return frame("run", properties, optional)


def _event(kind: str, properties: Mapping[str, Schema], optional: Collection[str] = ()) -> Schema:
    head = {"type": one_of([kind]), "uuid": UUID, "attempt": COUNT, "seq": COUNT}
    return record({**head, **properties}, optional)


_MESSAGE: Schema = {
    "oneOf": [
        _event("message", {"index": COUNT, "message": {}}),
        _event(
            "message", {"index": COUNT, "omitted": said({"const": True}, "The message did not fit into the frame.")}
        ),
    ]
}

_ERROR = frame(
    "error",
    {
        "uuid": said(UUID, "The run whose subscription this ends; an answer to a frame has a `ref` instead."),
        "code": one_of(ERROR_CODES),
        "detail": ref("TaskRefusalDetail"),
        "status": said({"type": "integer"}, "REST's status, if the code alone does not tell it."),
        "reason": said(
            one_of(["not_authenticated"]), "A caller without credentials asked: one that has some may find it."
        ),
        "omitted": {"type": "array", "items": one_of(["detail"])},
    },
    ("uuid", "status", "reason", "omitted"),
)


def name_of(kind: str) -> str:
    """The name of a frame's schema."""
    return f"Task{kind.capitalize()}Frame"


#: The schema of each frame but `run`, whose inputs are those of the tasks: see `taskapi.schemas.tasks`.
DEFINITIONS: dict[str, Schema] = {
    name_of("subscribe"): frame("subscribe", {"uuid": UUID, "after": _AFTER}, ("after",)),
    name_of("unsubscribe"): frame("unsubscribe", {"uuid": UUID}),
    name_of("cancel"): frame("cancel", {"uuid": UUID}),
    name_of("ping"): frame("ping", {}),
    name_of("accepted"): frame("accepted", {"task": ref("TaskRunShown")}),
    name_of("snapshot"): frame("snapshot", {"task": ref("TaskRunShown")}),
    name_of("unsubscribed"): frame("unsubscribed", {"uuid": UUID}),
    name_of("cancelling"): frame("cancelling", {"uuid": UUID}),
    name_of("pong"): frame("pong", {}),
    name_of("error"): _ERROR,
    name_of("status"): _event("status", {"status": one_of([s.value for s in Status if s not in FINAL])}),
    name_of("target"): _event("target", {"target": _INTEGER}),
    name_of("progress"): _event("progress", {"progress": _INTEGER, "target": _INTEGER}),
    name_of("message"): _MESSAGE,
    name_of("finished"): _event(
        "finished", {"status": one_of([s.value for s in Status if s in FINAL]), "task": ref("TaskRunEnd")}
    ),
    "TaskStreamEvent": {"oneOf": [ref(name_of(kind)) for kind in ("snapshot", *EVENTS, "error")]},
}
