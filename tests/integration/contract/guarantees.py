"""Checks of the frames that a subscriber received (section 4 of the contract)."""

from typing import Any

REPRESENTATION = {
    "uuid", "task", "status", "progress", "target", "inputs", "outputs", "messages", "message_count", "error",
    "attempt", "seq", "cancel_requested", "created", "started", "finished",
}  # fmt: skip

EVENTS = {  # the fields of each event, beside `type`, `uuid`, `attempt` and `seq`
    "status": {"status"},
    "target": {"target"},
    "progress": {"progress", "target"},
    "message": {"index", "message"},
    "finished": {"status", "task"},
}


def fields(run: dict[str, Any]) -> set[str]:
    """The fields of a representation, without the hint that a run has if no worker has taken it for seconds."""
    return set(run) - {"hint"}


def messages(frames: list[dict[str, Any]]) -> list[Any]:
    """The messages that the events carry."""
    return [frame["message"] for frame in frames if frame["type"] == "message"]


def check_stream(frames: list[dict[str, Any]]) -> None:
    """Check the frames of one subscription: `accepted` or `snapshot`, then its events up to `finished`."""
    first, *events = frames
    run = first["task"]
    assert fields(run) == REPRESENTATION
    for event in events:
        assert set(event) == {"type", "uuid", "attempt", "seq"} | EVENTS[event["type"]], event
        assert event["uuid"] == run["uuid"]
    _check_seq(run, events)
    _check_messages(run, events)
    _check_progress(run, events)
    _check_end(events)


def _check_seq(run: dict[str, Any], events: list[dict[str, Any]]) -> None:
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs)), "seq increases strictly"
    if run["status"] in ("pending", "running"):
        assert all(seq > run["seq"] for seq in seqs)


def _check_messages(run: dict[str, Any], events: list[dict[str, Any]]) -> None:
    indexes = [event["index"] for event in events if event["type"] == "message"]
    assert indexes == list(range(run["message_count"], events[-1]["task"]["message_count"])), "the indexes have no gap"


def _check_progress(run: dict[str, Any], events: list[dict[str, Any]]) -> None:
    told = [event["progress"] for event in events if event["type"] == "progress"]
    known = [value for value in (run["progress"], *told) if value is not None]
    assert known == sorted(known), "progress never goes backwards"
    assert events[-1]["task"]["progress"] == (known[-1] if known else None), "the last value arrives before `finished`"


def _check_end(events: list[dict[str, Any]]) -> None:
    assert [event["type"] for event in events].index("finished") == len(events) - 1, "one `finished`, the last event"
    last = events[-1]
    assert set(last["task"]) == REPRESENTATION - {"messages", "inputs"}
    assert last["status"] == last["task"]["status"]
    assert (last["task"]["seq"], last["task"]["attempt"]) == (last["seq"], last["attempt"])
