"""The benchmarks at a small size: they fail on a wrong result, never on a slow one."""

import math

import pytest

from benchmarks import report
from benchmarks.client import measures
from benchmarks.client.pages import Event, Page
from benchmarks.figures import FIGURES
from benchmarks.session import QUICK, Session
from benchmarks.stacks import OURS


class WrongPage(Page):
    """Adds wrongly."""

    async def run(self, task, **inputs):
        return sum(inputs["numbers"]) + 1

    def close(self):
        pass


def test_every_figure_of_ours_is_measured_and_every_run_and_event_arrives(databases):
    results = Session(databases, "sqlite", QUICK).measure([OURS], rounds=1)
    measured = {measure: figures for measure, [figures] in results[OURS.name].items()}
    assert set(measured) == set(OURS.measures)
    assert all(math.isfinite(measured[figure.measure][figure.key]) for figure in FIGURES)
    assert measured["run"]["ended"] == measured["burst"]["ended"] == 1
    assert measured["followers"]["delivered"] == measured["followers"]["ends"] == 1
    lines = report.table([OURS], results)
    assert len(lines) == 2 + len(FIGURES)


async def test_a_wrong_result_is_an_error_and_no_figure():
    with pytest.raises(RuntimeError, match="went wrong"):
        await measures.run(WrongPage, 0, runs=1, seconds=1, pause=0)
    with pytest.raises(RuntimeError, match="went wrong"):
        await measures.burst(WrongPage, 0, runs=2, at_once=1, seconds=1)


@pytest.mark.parametrize("said", [[1, 1, 2], [2, 1]])
def test_messages_that_repeat_or_change_places_are_an_error(said):
    told = [(1.0, Event("message", value)) for value in said]
    with pytest.raises(RuntimeError, match="messages"):
        measures.what_was_told([told], opened=0.0, calls=0, messages=len(said))


def test_a_subscriber_that_misses_a_message_or_the_end_is_seen():
    whole = [(1.0, Event("message", 1)), (1.1, Event("message", 2)), (1.2, Event("end", 3))]
    figures = measures.what_was_told([whole, whole[:1]], opened=0.0, calls=0, messages=2)
    assert (figures["delivered"], figures["ends"]) == (0.75, 0.5)
