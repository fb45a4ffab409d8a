"""Section 4 of the contract, point by point: checks of all the frames that one follower received.

tests/faults/test_promises.py shows that each check fails if its promise is broken.
"""

import json
from typing import Any

from taskapi.protocol import SHOWN_BYTES
from tests.faults.follower import Follower, Visitor
from tests.integration.contract.guarantees import EVENTS, REPRESENTATION, fields

FINAL = ("succeeded", "failed", "cancelled")
SENT_FRAME = 2**20  # bytes that a frame of the server may have
NOTICED = 10.0  # seconds after a logout in which the user's sockets are closed


def check(follower: Follower, run: dict[str, Any]) -> None:
    """Check everything that the follower received against the finished run, as REST shows it."""
    frames = [frame for subscription in follower.subscriptions for frame in subscription]
    check_shapes(frames, run["uuid"])
    assert follower.largest <= SENT_FRAME, f"a frame of {follower.largest} bytes: a server sends {SENT_FRAME} at most"
    check_messages(follower.subscriptions, run)
    check_order(follower.subscriptions)
    check_progress(frames, run["attempt"])
    check_end(follower.subscriptions, run)


def check_visit(visitor: Visitor, run: dict[str, Any]) -> None:
    """Check the frames of a user that logged out: none is wrong, and none comes later than NOTICED after the logout."""
    frames = [frame for subscription in visitor.subscriptions for frame in subscription]
    check_shapes(frames, run["uuid"])
    check_order(visitor.subscriptions)
    check_progress(frames, run["attempt"])
    told = told_by(visitor.subscriptions, run["messages"])
    assert told == run["messages"][: len(told)]
    assert visitor.asked is not None
    assert visitor.left is not None
    assert visitor.ended is not None
    how, when = visitor.ended
    if how == "finished" and when <= visitor.left:
        return  # the faults held up its logout until the run had ended
    # Judged by the end of its last subscription, and not by `when`: the faults may keep it off every server for longer.
    served = visitor.served_until - visitor.left
    assert how in ("closed", "refused"), f"{how}: it was served for {served:.1f} s after its logout"
    assert when >= visitor.asked, f"{how} {visitor.asked - when:.1f} s before it asked to log out"
    assert served <= NOTICED, f"it was served for {served:.1f} s after its logout"


def check_shapes(frames: list[dict[str, Any]], uuid: str) -> None:
    """Each frame has the fields of its type, and belongs to this run."""
    for frame in frames:
        assert frame.get("task", frame)["uuid"] == uuid
        if frame["type"] in ("accepted", "snapshot"):
            assert fields(frame["task"]) == REPRESENTATION
        else:
            assert set(frame) == {"type", "uuid", "attempt", "seq"} | EVENTS[frame["type"]], frame


def check_messages(subscriptions: list[list[dict[str, Any]]], run: dict[str, Any]) -> None:
    """Every message arrives once, in order (1), however often the follower reconnects (4)."""
    told = told_by(subscriptions, run["messages"])
    assert told == run["messages"]
    assert len(told) == run["message_count"]


def told_by(subscriptions: list[list[dict[str, Any]]], everything: list[Any]) -> list[Any]:
    """The messages that the follower received, checked to be in order; `everything` has all messages of the run."""
    told: list[Any] = []
    for first, *events in subscriptions:
        shown = first["task"]["messages"]
        told += shown
        lacking = first["task"]["message_count"] - len(told)
        assert lacking >= 0, f"a first frame repeats {-lacking} messages"
        if lacking:
            check_full(shown, everything[len(told)])
        for event in events:
            if event["type"] == "message":
                assert event["index"] == len(told), f"index {event['index']} after {len(told)} messages"
                told.append(event["message"])
    return told


def check_full(shown: list[Any], following: Any) -> None:
    """A first frame lacks messages only if it is full: the next message would not have fitted."""
    size = sum(len(json.dumps(message)) for message in [*shown, following])
    assert size > 0.9 * SHOWN_BYTES, f"a first frame lacks messages, although its {size} bytes of them leave room"


def check_order(subscriptions: list[list[dict[str, Any]]]) -> None:
    """`seq` grows strictly from event to event, and a snapshot is never older than what came before it."""
    last = -1
    for first, *events in subscriptions:
        assert first["task"]["seq"] >= last, "a snapshot is older than the frame before it"
        last = first["task"]["seq"]
        shows_end = first["task"]["status"] in FINAL
        for event in events:
            follows = event["type"] == "finished" and shows_end and event["seq"] == last  # both show the same state
            assert event["seq"] > last or follows, f"{event} after {last}"
            last = event["seq"]


def check_progress(frames: list[dict[str, Any]], attempts: int) -> None:
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
            continue
        if progress is not None and _shows_earlier_attempt(frame, told, attempts):
            continue
        if "progress" in state:
            went_back = progress is not None and (state["progress"] is None or state["progress"] < progress)
            assert not went_back, f"{frame} after progress {progress}"
            progress = state["progress"]
        target = state.get("target", target)


def _shows_earlier_attempt(frame: dict[str, Any], told: int, attempts: int) -> bool:
    """Whether a first frame may lack the progress that its attempt had made (docs/protocol.md, "What does not fit").

    It may if the run is in a later attempt already, and the follower still lacks messages (`told` of them arrived).
    """
    if frame["type"] not in ("accepted", "snapshot"):
        return False
    task = frame["task"]
    is_stripped = task["status"] == "running" and task["progress"] is None and task["target"] is None
    return is_stripped and task["attempt"] < attempts and told < task["message_count"]


def check_end(subscriptions: list[list[dict[str, Any]]], run: dict[str, Any]) -> None:
    """There is one `finished`, the last frame (3). A follower that reconnects after it gets it again."""
    for subscription in subscriptions:
        kinds = [frame["type"] for frame in subscription]
        assert "finished" not in kinds[:-1], f"`finished` is not the last frame: {kinds}"
    finished = subscriptions[-1][-1]
    assert finished["type"] == "finished"
    assert finished["task"] == {name: value for name, value in run.items() if name not in ("messages", "inputs")}
    assert run["status"] in FINAL
