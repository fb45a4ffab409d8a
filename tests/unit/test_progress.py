"""What a task says is stored at once and collected completely, in any thread and at any moment."""

import datetime as dt
import decimal
import itertools
import math
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.utils.functional import lazystr

from taskapi.exceptions import Interrupted
from taskapi.protocol import MAX_DEPTH, SAFE_INTEGER
from taskapi.tasks.progress import Speaker


class Wakes:
    """Counts how often it is called."""

    count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def wakes():
    return Wakes()


@pytest.fixture
def speaker(wakes):
    return Speaker(None, None, wake=wakes)


CALLS = {
    "target": lambda speaker: speaker.set_target(1),
    "progress": lambda speaker: speaker.set_progress(1),
    "increment": lambda speaker: speaker.inc_progress(),
    "message": lambda speaker: speaker.add_message("hi"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def eager_switching():
    """Threads are switched as often as Python can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_it_begins_with_what_the_run_had():
    assert Speaker(10, 4, wake=print).collect() == (10, 4, [])


def test_the_latest_numbers_and_every_message_are_collected_once(speaker):
    speaker.set_target(3)
    speaker.set_target(10)
    speaker.add_message("a")
    speaker.set_progress(4)
    speaker.inc_progress()
    speaker.inc_progress(2)
    speaker.add_message("b")
    assert speaker.collect() == (10, 7, ["a", "b"])
    assert speaker.collect() == (10, 7, [])


@each_call
def test_a_call_wakes_the_collector_and_the_next_ones_do_not(speaker, wakes, call):
    call(speaker)
    assert (speaker.pending, wakes.count) == (True, 1)
    for again in CALLS.values():
        again(speaker)
    assert wakes.count == 1


@each_call
def test_the_first_call_after_a_collection_wakes_again(speaker, wakes, call):
    call(speaker)
    speaker.collect()
    assert not speaker.pending
    call(speaker)
    assert wakes.count == 2


def test_progress_begins_at_nothing(speaker):
    speaker.inc_progress(3)
    assert speaker.collect().progress == 3


def test_a_target_can_be_taken_back(speaker):
    speaker.set_target(3)
    speaker.set_target(None)
    assert speaker.collect().target is None


@pytest.mark.parametrize("number", [7, 7.9, decimal.Decimal("7.5"), True + 6])
def test_numbers_lose_their_fraction(speaker, number):
    speaker.set_target(number)
    speaker.set_progress(number)
    assert speaker.collect()[:2] == (7, 7)
    speaker.inc_progress(number)
    assert speaker.collect().progress == 14


@pytest.mark.parametrize("wrong", ["7", b"7", math.nan, math.inf, [7]])
@pytest.mark.parametrize("method", ["set_target", "set_progress", "inc_progress"])
def test_what_is_no_number_is_refused_where_it_is_said(speaker, wakes, method, wrong):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(speaker, method)(wrong)
    assert speaker.collect() == (None, None, [])
    assert wakes.count == 0


@pytest.mark.parametrize(("said", "collected"), [(10**30, SAFE_INTEGER), (-(10**30), -SAFE_INTEGER)])
def test_numbers_stay_within_what_a_client_reads_exactly(speaker, said, collected):
    speaker.set_target(said)
    speaker.set_progress(said)
    assert speaker.collect()[:2] == (collected, collected)


# Messages


def test_a_message_is_what_it_was_when_it_was_said(speaker):
    message = {"rows": [1]}
    speaker.add_message(message)
    message["rows"].append(2)
    assert speaker.collect().messages == [{"rows": [1]}]


@pytest.mark.parametrize(
    ("said", "collected"),
    [
        (None, None),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        ("\0\ud83d", "\0\ud83d"),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00Z"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        (lazystr("later"), "later"),
    ],
)
def test_what_django_writes_as_json_can_be_said(speaker, said, collected):
    speaker.add_message(said)
    assert speaker.collect().messages == [collected]


@pytest.mark.parametrize("wrong", [math.nan, [math.inf], {1, 2}, object(), {(1, 2): 3}, [10**5000]])
def test_what_is_not_json_is_refused_where_it_is_said(speaker, wrong):
    with pytest.raises((TypeError, ValueError)):
        speaker.add_message(wrong)
    assert speaker.collect().messages == []


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 980, 100_000])
def test_a_message_that_is_nested_too_deeply_is_refused_where_it_is_said(speaker, depth):
    message = None
    for _ in range(depth):
        message = [message]
    with pytest.raises(ValueError, match=f"{MAX_DEPTH} deep"):
        speaker.add_message(message)
    assert speaker.collect().messages == []


# Threads


def collected_while(speaker, say):
    """All that this thread collects while `say` runs in another thread, and once more when it has ended."""
    with ThreadPoolExecutor(1) as pool:
        saying = pool.submit(say)
        collected = []
        while not saying.done():
            collected.append(speaker.collect())
        saying.result()
        return [*collected, speaker.collect()]


@pytest.mark.usefixtures("eager_switching")
def test_nothing_is_lost_between_a_thread_that_counts_and_one_that_collects(speaker):
    def count():
        for _ in range(50_000):
            speaker.inc_progress()

    said = [said.progress or 0 for said in collected_while(speaker, count)]
    assert said[-1] == 50_000
    assert said == sorted(said)


@pytest.mark.usefixtures("eager_switching")
def test_every_message_is_collected_once_and_in_order(speaker):
    def talk():
        for n in range(5_000):
            speaker.add_message(n)

    messages = [message for said in collected_while(speaker, talk) for message in said.messages]
    assert messages == list(range(5_000))


@pytest.mark.usefixtures("eager_switching")
def test_what_is_said_during_a_collection_is_in_it_or_wakes_the_next():
    waking = threading.Semaphore(0)
    speaker = Speaker(None, None, wake=waking.release)

    def count():
        for _ in range(50_000):
            speaker.inc_progress()

    with ThreadPoolExecutor(1) as pool:
        saying = pool.submit(count)
        last = None
        while last != 50_000:
            assert waking.acquire(timeout=10), f"no wake-up after {last}"
            last = speaker.collect().progress
        saying.result()


SAID = {  # each call, its argument, and whether that was collected
    "target": (Speaker.set_target, 7, lambda said: said.target == 7),
    "progress": (Speaker.set_progress, 7, lambda said: said.progress == 7),
    "increment": (Speaker.inc_progress, 7, lambda said: said.progress == 7),
    "message": (Speaker.add_message, "hi", lambda said: said.messages == ["hi"]),
}
each_said = pytest.mark.parametrize(("call", "value", "has_it"), SAID.values(), ids=SAID)


def switched(number, other, function, *arguments):
    """Call `function`, and just before its line of that number call `other`, as if threads were switched there.

    Returns the result of `function`, and whether it has executed so many lines.
    """
    lines = itertools.count()
    passed = []

    def look(frame, event, arg):
        if event == "line" and next(lines) == number:
            passed.append(True)
            other()
        return look

    usual = sys.gettrace()
    sys.settrace(lambda frame, *_: look if frame.f_code is function.__code__ else None)
    try:
        result = function(*arguments)
    finally:
        sys.settrace(usual)
    return result, bool(passed)


@each_said
def test_what_is_said_at_any_moment_of_a_collection_is_in_it_or_wakes_the_next(call, value, has_it):
    for number in itertools.count():
        wakes = Wakes()
        speaker = Speaker(None, None, wake=wakes)
        speaker.changed()  # there is something to collect
        said, passed = switched(number, partial(call, speaker, value), Speaker.collect, speaker)
        if not passed:
            break
        assert has_it(said) or (wakes.count == 2 and has_it(speaker.collect())), f"lost before line {number}"
    assert number > 2


@each_said
def test_a_collection_at_any_moment_of_a_call_has_what_it_says_or_is_not_the_last(call, value, has_it):
    for number in itertools.count():
        wakes = Wakes()
        speaker = Speaker(None, None, wake=wakes)
        collected = []
        _, passed = switched(number, lambda: collected.append(speaker.collect()), call, speaker, value)  # noqa: B023
        if not passed:
            break
        assert has_it(collected[0]) or (wakes.count == 1 and has_it(speaker.collect())), f"lost before line {number}"
    assert number > 1


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("n", [1, 1.0])
def test_threads_that_count_together_lose_nothing(speaker, n):
    def count():
        for _ in range(50_000):
            speaker.inc_progress(n)

    with ThreadPoolExecutor(2) as pool:
        for counting in [pool.submit(count) for _ in range(2)]:
            counting.result()
    assert speaker.collect().progress == 100_000


# Interrupting


@each_call
def test_after_an_interrupt_the_next_call_raises(speaker, call):
    speaker.interrupt()
    with pytest.raises(Interrupted):
        call(speaker)


@each_call
def test_an_interrupt_is_raised_once_so_that_a_task_can_say_something_as_it_cleans_up(speaker, wakes, call):
    speaker.interrupt()
    with pytest.raises(Interrupted):
        speaker.check_interrupted()
    call(speaker)
    speaker.add_message("cleaned up")
    speaker.check_interrupted()
    assert wakes.count == 1
    assert speaker.collect().messages[-1] == "cleaned up"


@each_call
def test_an_interrupt_does_not_wait_for_a_collection(speaker, call):
    speaker.set_progress(1)  # from here to the next collection, a call only stores
    speaker.interrupt()
    with pytest.raises(Interrupted):
        call(speaker)


def test_what_was_said_before_an_interrupt_and_with_it_is_collected(speaker):
    speaker.set_progress(1)
    speaker.add_message("before")
    speaker.interrupt()
    with pytest.raises(Interrupted):
        speaker.add_message("with")
    assert speaker.collect() == (None, 1, ["before", "with"])


def test_checking_raises_after_an_interrupt_only(speaker):
    speaker.check_interrupted()
    speaker.interrupt()
    with pytest.raises(Interrupted):
        speaker.check_interrupted()


def test_a_tasks_own_except_does_not_swallow_an_interrupt():
    assert not issubclass(Interrupted, Exception)
