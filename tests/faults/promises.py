"""Section 4 of the contract, point by point, on what a follower was told over all its connections."""

import json
from typing import Any

from taskapi.protocol import SHOWN_BYTES
from tests.faults.follower import Follower, Visitor
from tests.integration.contract.guarantees import EVENTS, REPRESENTATION

FINAL = ("succeeded", "failed", "cancelled")
SENT_FRAME = 2**20  # bytes that a frame of the server may have
NOTICED = 10.0  # seconds in which a socket is closed whose user has logged out


def check(follower: Follower, run: dict[str, Any]) -> None:
    """Check all that the follower was told against the run as REST has it in the end."""
    frames = [frame for subscription in follower.subscriptions for frame in subscription]
    check_shapes(frames, run["uuid"])
    assert follower.largest <= SENT_FRAME, "a frame that is larger than a server sends"
    check_messages(follower.subscriptions, run)
    check_order(follower.subscriptions)
    check_progress(frames)
    check_end(follower.subscriptions, run)


def check_visit(visitor: Visitor, run: dict[str, Any]) -> None:
    """Check what somebody was told who logged out: nothing that is not so, and nothing any more soon afterwards."""
    frames = [frame for subscription in visitor.subscriptions for frame in subscription]
    check_shapes(frames, run["uuid"])
    check_order(visitor.subscriptions)
    check_progress(frames)
    told = told_by(visitor.subscriptions, run["messages"])
    assert told == run["messages"][: len(told)]
    assert visitor.left is not None
    assert visitor.ended is not None
    how, when = visitor.ended
    assert how in ("closed", "refused"), f"{how}: it was served for {when - visitor.left:.1f} s after its logout"
    # One that is refused was between two sockets, for as long as the faults would have it: nobody served it meanwhile.
    served = when if how == "closed" else visitor.heard
    assert served - visitor.left <= NOTICED, f"it was served for {served - visitor.left:.1f} s after its logout"


def check_shapes(frames: list[dict[str, Any]], uuid: str) -> None:
    """Each frame has the fields of its type, and is of this run."""
    for frame in frames:
        assert frame.get("task", frame)["uuid"] == uuid
        if frame["type"] in ("accepted", "snapshot"):
            assert set(frame["task"]) == REPRESENTATION
        else:
            assert set(frame) == {"type", "uuid", "attempt", "seq"} | EVENTS[frame["type"]], frame


def check_messages(subscriptions: list[list[dict[str, Any]]], run: dict[str, Any]) -> None:
    """Every message, once, in order (1), however often the follower came back (4)."""
    told = told_by(subscriptions, run["messages"])
    assert told == run["messages"]
    assert len(told) == run["message_count"]


def told_by(subscriptions: list[list[dict[str, Any]]], everything: list[Any]) -> list[Any]:
    """The messages that a follower was told, which came in order; `everything` that there was to tell."""
    told: list[Any] = []
    for first, *events in subscriptions:
        shown = first["task"]["messages"]
        told += shown
        if len(told) != first["task"]["message_count"]:
            check_full(shown, everything[len(told)])
        for event in events:
            if event["type"] == "message":
                assert event["index"] == len(told), f"index {event['index']} after {len(told)} messages"
                told.append(event["message"])
    return told


def check_full(shown: list[Any], following: Any) -> None:
    """A snapshot has what its follower lacks, or as much of it as a first frame shows; the others follow."""
    size = sum(len(json.dumps(message)) for message in [*shown, following])
    assert size > 0.9 * SHOWN_BYTES, "a snapshot has what its follower lacks"


def check_order(subscriptions: list[list[dict[str, Any]]]) -> None:
    """`seq` grows over a run's life: strictly from event to event, and a snapshot is never of the past."""
    last = -1
    for first, *events in subscriptions:
        assert first["task"]["seq"] >= last, "a snapshot of the past"
        ended = first["task"]["status"] in FINAL  # then its `finished` is of the same moment
        last = first["task"]["seq"]
        for event in events:
            assert event["seq"] > last or ended, f"{event} after {last}"
            last = event["seq"]


def check_progress(frames: list[dict[str, Any]]) -> None:
    """Progress never goes backwards within an attempt, and its last value arrives before `finished` (2)."""
    attempt, progress, target, told = 0, None, None, 0
    for frame in frames:
        state = frame.get("task", frame)
        told += len(state.get("messages", ())) + (frame["type"] == "message")
        if state["attempt"] != attempt:
            assert state["attempt"] > attempt, "back to an earlier attempt"
            attempt, progress, target = state["attempt"], None, None
        if frame["type"] == "finished":
            assert state["progress"] == progress, f"the last progress that came before `finished` was {progress}"
            assert state["target"] == target, f"the last target that came before `finished` was {target}"
        elif frame["type"] == "snapshot" and state["status"] == "running" and state["progress"] is None:
            # Nothing was reported yet. Or it is an earlier attempt, whose messages do not all fit: how far it had come
            # is not known any more.
            assert progress is None or told < state["message_count"]
            target = target if state["target"] is None else state["target"]
            continue
        elif "progress" in state:
            assert progress is None or state["progress"] >= progress, f"{frame} after {progress}"
            progress = state["progress"]
        target = state.get("target", target)


def check_end(subscriptions: list[list[dict[str, Any]]], run: dict[str, Any]) -> None:
    """Exactly one `finished`, the last (3). Who is cut off after it and comes back gets it again, with the snapshot."""
    for subscription in subscriptions:
        kinds = [frame["type"] for frame in subscription]
        assert "finished" not in kinds[:-1]
    finished = subscriptions[-1][-1]
    assert finished["type"] == "finished"
    assert finished["task"] == {name: value for name, value in run.items() if name not in ("messages", "inputs")}
    assert run["status"] in FINAL
