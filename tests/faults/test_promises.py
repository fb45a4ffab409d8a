"""The checks of promises.py, on histories made by hand: the good ones pass, and each kind of bad one fails."""

from copy import deepcopy

import pytest

from taskapi.protocol import SEQ_SPAN, SHOWN_BYTES
from tests.faults.follower import Follower, Visitor
from tests.faults.promises import NOTICED, SENT_FRAME, check, check_visit

UUID = "0b2f5f0e-7ad7-4bbf-9d53-5b3a1f1d8b0e"
LARGE = "x" * (SHOWN_BYTES // 2)  # of two such messages, a first frame has one
LEFT = 1000.0  # when the visitor was logged out


def representation(messages, **changes):
    run = {
        "uuid": UUID, "task": "work", "status": "running", "progress": None, "target": None, "inputs": {},
        "outputs": None, "messages": messages, "message_count": len(messages), "error": None, "attempt": 1,
        "seq": SEQ_SPAN, "cancel_requested": False, "created": "then", "started": "then", "finished": None,
    }  # fmt: skip
    return run | changes


def first(kind, messages, **changes):
    return {"type": kind, "ref": "1", "task": representation(messages, **changes)}


def event(kind, seq, attempt=1, **fields):
    return {"type": kind, "uuid": UUID, "attempt": attempt, "seq": attempt * SEQ_SPAN + seq, **fields}


def message(seq, index, body, attempt=1):
    return event("message", seq, attempt, index=index, message=body)


def progress(seq, value, attempt=1):
    return event("progress", seq, attempt, progress=value, target=6)


def finished(run):
    task = {name: value for name, value in run.items() if name not in ("messages", "inputs")}
    shown = {name: run[name] for name in ("uuid", "attempt", "seq", "status")}
    return {"type": "finished", **shown, "task": task}


RUN = representation(
    ["a", "b"], status="succeeded", progress=6, target=6, outputs={}, finished="now", seq=SEQ_SPAN + 60
)


def one_attempt():
    """A follower that is cut off once while the run's one attempt goes on."""
    return [
        [
            first("accepted", [], status="pending", attempt=0, seq=0),
            event("status", 1, status="running"),
            event("target", 5, target=6),
            message(10, 0, "a"),
            progress(11, 1),
        ],
        [
            first("snapshot", ["b"], message_count=2, progress=4, target=6, seq=SEQ_SPAN + 20),
            progress(30, 6),
            finished(RUN),
        ],
    ]


LARGE_RUN = representation(
    [LARGE + "a", LARGE + "b", LARGE + "c"],
    status="succeeded", progress=6, target=6, outputs={}, finished="now", attempt=2, seq=2 * SEQ_SPAN + 60,
)  # fmt: skip


def two_attempts():
    """A follower that comes back in the second attempt, while it still lacks large messages of the first."""
    a, b, c = LARGE_RUN["messages"]
    return [
        [
            first("accepted", [], status="pending", attempt=0, seq=0),
            event("status", 1, status="running"),
            progress(9, 3),
        ],
        [
            first("snapshot", [a], message_count=3, seq=SEQ_SPAN + 10),  # its attempt alone, and no progress
            message(20, 1, b),
            event("status", 1, attempt=2, status="running"),
            message(10, 2, c, attempt=2),
            progress(11, 6, attempt=2),
            finished(LARGE_RUN),
        ],
    ]


def told(subscriptions, cls=Follower):
    follower = cls(lambda: "ws://nowhere")
    follower.subscriptions = subscriptions
    return follower


def fails(subscriptions, run=RUN, match=None):
    with pytest.raises(AssertionError, match=match):
        check(told(subscriptions), run)


# Good ones


def test_a_follower_that_was_cut_off_and_told_everything_passes():
    check(told(one_attempt()), RUN)


def test_a_follower_that_comes_back_after_the_end_and_is_told_it_again_passes():
    shown = {name: RUN[name] for name in RUN if name != "messages"}
    check(told([[first("snapshot", said, **shown), finished(RUN)] for said in (["a", "b"], [])]), RUN)


def test_a_first_frame_of_an_earlier_attempt_may_lack_the_progress_that_was_told():
    check(told(two_attempts()), LARGE_RUN)


def test_a_target_that_only_a_snapshot_without_progress_told_is_known():
    run = RUN | {"status": "cancelled", "progress": None, "outputs": None}
    history = [[first("snapshot", ["a", "b"], target=6, seq=SEQ_SPAN + 20), finished(run)]]
    check(told(history), run)


# Bad ones: messages


def test_a_message_that_never_arrives_fails():
    history = one_attempt()
    history[1][0]["task"]["messages"] = []
    fails(history, match="leave room")


def test_a_message_that_arrives_twice_fails():
    history = one_attempt()
    history[1].insert(1, message(25, 1, "b"))
    fails(history, match="index 1 after 2")


def test_a_message_that_a_snapshot_repeats_fails():
    history = one_attempt()
    history[1][0]["task"]["messages"] = ["a", "b"]
    fails(history)


def test_messages_in_another_order_fail():
    history = two_attempts()
    history[1][1], history[1][3] = history[1][3], history[1][1]
    fails(history, LARGE_RUN, match="index 2 after 1")


def test_another_message_than_the_row_has_fails():
    history = one_attempt()
    history[0][3]["message"] = "c"
    fails(history)


# Bad ones: progress


def test_progress_that_goes_backwards_fails():
    history = one_attempt()
    history[1][1]["progress"] = 3
    fails(history, match="after progress 4")


def test_a_snapshot_with_less_progress_than_was_told_fails():
    history = one_attempt()
    history[1][0]["task"]["progress"] = 0
    fails(history, match="after progress 1")


def test_a_snapshot_of_everything_that_lacks_its_progress_fails():
    history = one_attempt()
    history[1][0]["task"].update(progress=None, target=None)
    fails(history, match="after progress 1")


def test_a_snapshot_of_the_last_attempt_that_lacks_its_progress_fails_whatever_messages_follow():
    run = LARGE_RUN | {"attempt": 1, "seq": SEQ_SPAN + 60}
    _, b, c = run["messages"]
    history = two_attempts()
    history[1] = [history[1][0], message(20, 1, b), message(30, 2, c), progress(31, 6), finished(run)]
    fails(history, run, match="after progress 3")


def test_a_snapshot_of_an_earlier_attempt_that_lacks_its_progress_but_no_message_fails():
    run = LARGE_RUN | {"messages": ["a"], "message_count": 1}
    history = two_attempts()
    history[1][0]["task"].update(messages=["a"], message_count=1)
    del history[1][3], history[1][1]
    fails(history, run, match="after progress 3")


def test_an_event_without_the_progress_that_was_told_fails():
    history = two_attempts()
    history[1].insert(2, progress(25, None))
    fails(history, LARGE_RUN, match="after progress 3")


def test_a_last_progress_that_was_not_told_before_finished_fails():
    history = one_attempt()
    del history[1][1]
    fails(history, match="last progress that came before `finished` was 4")


def test_a_last_target_that_was_not_told_before_finished_fails():
    history = one_attempt()
    history[1][-1] = finished(RUN | {"target": 7})
    fails(history, match="last target")


def test_an_event_of_an_earlier_attempt_after_a_later_one_fails():
    history = two_attempts()
    history[1].insert(3, event("progress", SEQ_SPAN + 2, progress=3, target=6))
    fails(history, LARGE_RUN, match="earlier attempt")


# Bad ones: order and end


def test_a_snapshot_of_the_past_fails():
    history = one_attempt()
    history[1][0]["task"]["seq"] = SEQ_SPAN + 2
    fails(history, match="older")


@pytest.mark.parametrize("seq", [5, 3], ids=["the same", "a lower one"])
def test_a_seq_that_does_not_grow_fails(seq):
    history = one_attempt()
    history[0][3]["seq"] = SEQ_SPAN + seq
    fails(history, match="after 1000000005")


def test_an_event_that_repeats_what_a_snapshot_of_the_end_shows_fails():
    shown = first("snapshot", ["a", "b"], **{name: RUN[name] for name in RUN if name != "messages"})
    fails([[shown, progress(60, 6), finished(RUN)]], match="after 1000000060")


def test_a_missing_finished_fails():
    history = one_attempt()
    del history[1][-1]
    fails(history)


def test_a_second_finished_fails():
    history = one_attempt()
    history[1].append({**finished(RUN), "seq": RUN["seq"] + 1})
    fails(history, match="not the last frame")


def test_a_finished_that_differs_from_the_row_fails():
    history = deepcopy(one_attempt())
    history[1][-1]["task"]["outputs"] = {"other": 1}
    fails(history)


# Bad ones: shapes


@pytest.mark.parametrize("number", [0, 2], ids=["a first frame", "an event"])
def test_a_frame_with_a_field_too_many_fails(number):
    history = one_attempt()
    frame = history[0][number]
    frame.get("task", frame)["extra"] = 1
    fails(history)


def test_a_frame_of_another_run_fails():
    history = one_attempt()
    history[0][2]["uuid"] = UUID.replace("0", "1")
    fails(history)


def test_a_frame_that_is_too_large_fails():
    follower = told(one_attempt())
    follower.largest = SENT_FRAME + 1
    with pytest.raises(AssertionError, match="at most"):
        check(follower, RUN)


# Visitors, who log out


def visitor(how="closed", served=2.0, ended=2.0):
    """One that was served, and whose following ended, so many seconds after its logout."""
    visitor = told(one_attempt()[:1], Visitor)
    visitor.asked, visitor.left = LEFT - 0.5, LEFT
    visitor.served_until, visitor.ended = LEFT + served, (how, LEFT + ended)
    return visitor


@pytest.mark.parametrize("how", ["closed", "refused"])
def test_a_visitor_that_is_served_no_more_soon_after_its_logout_passes(how):
    check_visit(visitor(how), RUN)


@pytest.mark.parametrize("how", ["closed", "refused"])
def test_a_visitor_that_reaches_a_server_late_and_is_not_served_passes(how):
    check_visit(visitor(how, served=-5, ended=NOTICED + 20), RUN)


@pytest.mark.parametrize("how", ["closed", "refused"])
def test_a_visitor_that_is_served_for_long_after_its_logout_fails_however_that_ends(how):
    with pytest.raises(AssertionError, match="it was served for 11"):
        check_visit(visitor(how, served=NOTICED + 1, ended=NOTICED + 20), RUN)


def test_a_visitor_whose_run_ends_before_its_logout_passes():
    check_visit(visitor("finished", served=-0.1, ended=-0.1), RUN)


def test_a_visitor_that_is_served_to_the_end_of_its_run_fails():
    with pytest.raises(AssertionError, match="finished: it was served"):
        check_visit(visitor("finished"), RUN)


@pytest.mark.parametrize("how", ["closed", "refused"])
def test_a_visitor_that_is_sent_away_before_it_asks_to_log_out_fails(how):
    with pytest.raises(AssertionError, match="before it asked"):
        check_visit(visitor(how, served=-1.5, ended=-1.5), RUN)


def test_a_visitor_that_is_never_sent_away_fails():
    never = visitor()
    never.ended = None
    with pytest.raises(AssertionError):
        check_visit(never, RUN)


def test_a_visitor_that_is_told_what_is_not_so_fails():
    wrong = visitor()
    wrong.subscriptions[0][3]["message"] = "c"
    with pytest.raises(AssertionError):
        check_visit(wrong, RUN)
