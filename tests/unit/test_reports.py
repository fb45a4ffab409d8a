"""`changes` gives the events between two states of a run: each once, in order, and no more than are needed."""

import json
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapi.models import TaskInfo
from taskapi.protocol import SEQ_STATE, Message, Report, State, changes, first_seq

RUN = UUID("12345678-1234-5678-1234-567812345678")
ONE, TWO = first_seq(1), first_seq(2)


def state(seq, attempt=1, status="running", **fields):
    """The row of the run at one moment."""
    return TaskInfo(uuid=RUN, task="any", seq=seq, attempt=attempt, status=status, **fields)


def read(events):
    return [json.loads(event.text) for event in events]


SAYS = {"status": "status", "target": "target", "progress": "progress", "message": "message", "finished": "status"}


def told(before, after, messages=()):
    """The kind and the value of each event."""
    return [(frame["type"], frame[SAYS[frame["type"]]]) for frame in read(changes(before, after, messages))]


PENDING = state(0, 0, "pending")
BEGUN = state(ONE + 4)
TALKING = state(ONE + 10, target=9, progress=3)
HANDED_BACK = state(ONE + 14, status="pending", target=9, progress=3)
AGAIN = state(TWO + 4, 2)
DONE = state(ONE + 14, status="succeeded", target=9, progress=9)
BEGINNING = ("status", "running")


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (PENDING, PENDING, []),
        (PENDING, BEGUN, [BEGINNING]),
        (PENDING, TALKING, [BEGINNING, ("target", 9), ("progress", 3)]),
        (PENDING, state(ONE - 1, 0, "cancelled"), [("finished", "cancelled")]),
        (BEGUN, BEGUN, []),
        (BEGUN, TALKING, [("target", 9), ("progress", 3)]),
        (TALKING, BEGUN, []),
        (TALKING, state(ONE + 14, target=9, progress=4), [("progress", 4)]),
        (TALKING, state(ONE + 14, target=None, progress=3), [("target", None)]),
        (TALKING, HANDED_BACK, [("status", "pending")]),
        (TALKING, AGAIN, [BEGINNING]),
        (TALKING, state(TWO + 8, 2, target=9), [BEGINNING, ("target", 9)]),
        (TALKING, DONE, [("progress", 9), ("finished", "succeeded")]),
        (HANDED_BACK, state(TWO - 1, 1, "cancelled", target=9, progress=3), [("finished", "cancelled")]),
        (DONE, DONE, []),
        # only the number of the first state is known
        (State(RUN, -1), PENDING, [("status", "pending")]),
        (State(RUN, ONE + 4), TALKING, [("target", 9), ("progress", 3)]),
        (State(RUN, ONE + 8), TALKING, [("progress", 3)]),
        (State(RUN, ONE + 9), TALKING, []),
        (State(RUN, ONE + 13), DONE, [("finished", "succeeded")]),
    ],
)
def test_what_is_told_between_two_states(before, after, events):
    assert told(before, after) == events


def test_messages_come_first_and_each_attempt_begins_with_its_beginning():
    messages = [Message(0, 1, ONE + 5, "a"), Message(1, 1, ONE + 6, "b"), Message(2, 2, TWO + 5, "c")]
    events = read(changes(PENDING, state(TWO + 9, 2, progress=1), messages))
    assert [frame["type"] for frame in events] == ["status", "message", "message", "status", "message", "progress"]
    assert [frame["attempt"] for frame in events] == [1, 1, 1, 2, 2, 2]
    assert [frame["seq"] for frame in events] == [ONE + 1, ONE + 5, ONE + 6, TWO + 1, TWO + 5, TWO + 8]


def test_messages_that_are_known_are_not_told_again():
    messages = [Message(0, 1, ONE + 5, "a"), Message(1, 1, ONE + 6, "b")]
    assert told(State(RUN, ONE + 5), state(ONE + 10), messages) == [("message", "b")]


def test_an_attempt_may_say_it_with_what_it_has_and_the_row_with_what_it_is():
    now = State(RUN, ONE + 10, 1, 9, 3)
    assert list(changes(BEGUN, now)) == list(changes(BEGUN, TALKING))


def test_events_are_encoded_as_they_are_asked_for():
    asked = []

    def messages():
        for index in range(3):
            asked.append(index)
            yield Message(index, 1, ONE + 5 + index, "said")

    events = changes(BEGUN, state(ONE + 11), messages())
    next(events)
    assert asked == [0]


def test_a_report_is_what_lies_between_two_states():
    report = Report.between(TALKING, DONE, 7)
    assert report[:4] == (DONE.seq, TALKING.seq, 7, True)
    assert report.events == list(changes(TALKING, DONE))
    assert not Report.between(BEGUN, TALKING, 0).finished


# Any history


class Moment(NamedTuple):
    """A state of a run, with all messages so far."""

    row: TaskInfo
    messages: list[Message]


@st.composite
def histories(draw):
    """The moments of a run, as attempts write them: each may add messages, and set a target and a progress."""
    moments = [Moment(state(0, 0, "pending"), [])]
    messages: list[Message] = []
    for attempt in range(1, draw(st.integers(1, 3)) + 1):
        seq, target, progress = first_seq(attempt) + SEQ_STATE, None, None
        moments.append(Moment(state(seq, attempt), list(messages)))
        for _ in range(draw(st.integers(0, 3))):
            target = draw(st.sampled_from([target, target, 10, 20, None]))
            progress = draw(st.sampled_from([progress, (progress or 0) + 1]))
            seq = say(draw, messages, seq, attempt)
            moments.append(Moment(state(seq, attempt, target=target, progress=progress), list(messages)))
        seq = say(draw, messages, seq, attempt)
        moments.append(Moment(state(seq, attempt, "pending", target=target, progress=progress), list(messages)))
    status = draw(st.sampled_from(["succeeded", "failed", "cancelled"]))
    last = moments[-1].row
    end = draw(st.sampled_from([last.seq + SEQ_STATE, first_seq(last.attempt + 1) - 1]))
    moments.append(Moment(state(end, last.attempt, status, target=last.target, progress=last.progress), messages))
    return moments


def say(draw, messages, seq, attempt):
    """Add messages, and return the number of the report."""
    for _ in range(draw(st.integers(0, 2))):
        seq += 1
        messages.append(Message(len(messages), attempt, seq, f"message {len(messages)}"))
    return seq + SEQ_STATE


class Client:
    """What a client knows of a run, first from a snapshot and then from events."""

    def __init__(self, moment):
        row = moment.row
        self.facts: dict[str, Any] = {name: getattr(row, name) for name in ("attempt", "status", "target", "progress")}
        self.messages = [message.body for message in moment.messages]

    def hear(self, events):
        for frame in read(events):
            self._hear(frame)
        return self

    def _hear(self, frame):
        kind = frame["type"]
        if kind == "message":
            assert frame["index"] == len(self.messages)
            self.messages.append(frame["message"])
        elif kind == "finished":
            self.facts = {name: frame["task"][name] for name in self.facts}
        else:
            if frame["attempt"] > self.facts["attempt"]:
                assert (kind, frame["status"]) == BEGINNING
                self.facts |= {"attempt": frame["attempt"], "target": None, "progress": None}
            self.facts |= {name: frame[name] for name in ("status", "target", "progress") if name in frame}

    def knows(self):
        return self.facts, self.messages


def between(before, after):
    return list(changes(before.row, after.row, after.messages[len(before.messages) :]))


three_moments = histories().flatmap(
    lambda history: (
        st.lists(st.sampled_from(range(len(history))), min_size=3, max_size=3)
        .map(sorted)
        .map(lambda places: [history[place] for place in places])
    )
)


@given(moments=three_moments)
def test_numbers_grow_strictly_from_one_state_to_the_next(moments):
    first, _, last = moments
    numbers = [first.row.seq, *(event.seq for event in between(first, last))]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] <= last.row.seq


@given(moments=three_moments)
def test_two_steps_tell_the_same_as_one(moments):
    first, second, last = moments
    in_two, in_one = [*between(first, second), *between(second, last)], between(first, last)
    assert Client(first).hear(in_two).knows() == Client(first).hear(in_one).knows() == Client(last).knows()
    numbers = [event.seq for event in in_two]
    assert numbers == sorted(set(numbers))
    assert len(in_one) <= len(in_two)


@given(moments=three_moments, heard=st.integers(0, 9))
def test_what_was_cut_off_anywhere_is_told_by_the_rest(moments, heard):
    """A follower that knows only the number of its last event gets the rest, and nothing twice."""
    first, _, last = moments
    part = between(first, last)[:heard]
    seq = part[-1].seq if part else first.row.seq
    rest = list(changes(State(RUN, seq), last.row, last.messages[len(first.messages) :]))
    client = Client(first).hear(part).hear(rest)
    numbers = [event.seq for event in (*part, *rest)]
    assert numbers == sorted(set(numbers))
    assert client.messages == Client(last).messages
    if last.row.target is not None:  # a target that was removed is told when it happens, and by `progress`
        assert client.knows() == Client(last).knows()
