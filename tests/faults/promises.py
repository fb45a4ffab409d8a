"""Section 4 of the contract, point by point, on what a follower was told over all its connections."""

from typing import Any

from tests.faults.follower import Follower
from tests.integration.contract.guarantees import EVENTS, REPRESENTATION

FINAL = ("succeeded", "failed", "cancelled")


def check(follower: Follower, run: dict[str, Any]) -> None:
    """Check all that the follower was told against the run as REST has it in the end."""
    frames = [frame for subscription in follower.subscriptions for frame in subscription]
    check_shapes(frames, run["uuid"])
    check_messages(follower.subscriptions, run)
    check_order(follower.subscriptions)
    check_progress(frames)
    check_end(follower.subscriptions, run)


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
    told: list[Any] = []
    for first, *events in subscriptions:
        told += first["task"]["messages"]
        assert len(told) == first["task"]["message_count"], "a snapshot has what its follower lacks"
        for event in events:
            if event["type"] == "message":
                assert event["index"] == len(told), f"index {event['index']} after {len(told)} messages"
                told.append(event["message"])
    assert told == run["messages"]
    assert len(told) == run["message_count"]


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
    attempt, progress, target = 0, None, None
    for frame in frames:
        state = frame.get("task", frame)
        if state["attempt"] != attempt:
            assert state["attempt"] > attempt, "back to an earlier attempt"
            attempt, progress, target = state["attempt"], None, None
        if frame["type"] == "finished":
            assert state["progress"] == progress, f"the last progress that came before `finished` was {progress}"
            assert state["target"] == target, f"the last target that came before `finished` was {target}"
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
    assert finished["task"] == {name: value for name, value in run.items() if name != "messages"}
    assert run["status"] in FINAL
