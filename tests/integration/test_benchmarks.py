"""The benchmarks at a small size: they fail if a result is wrong, never if it is slow."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import before, chart, report, soak
from benchmarks.client import measures
from benchmarks.client.pages import Event, Failed, Page
from benchmarks.environments import ROOT
from benchmarks.figures import FIGURES
from benchmarks.servers import Servers
from benchmarks.session import QUICK, Session
from benchmarks.stacks import OURS, PEERS


class WrongPage(Page):
    """Returns a wrong sum."""

    async def run(self, task, **inputs):
        return sum(inputs["numbers"]) + 1

    def close(self):
        pass


class FailingPage(WrongPage):
    """Fails at every measure."""

    async def run(self, task, **inputs):
        raise Failed("as ever")


def test_every_figure_of_ours_is_measured_and_every_run_and_event_arrives(databases):
    results = Session(databases, "sqlite", QUICK).measure([OURS], rounds=1)
    measured = {measure: figures for measure, [figures] in results[OURS.name].items()}
    assert set(measured) == set(OURS.measures)
    assert all(math.isfinite(measured[figure.measure][figure.key]) for figure in FIGURES)
    assert measured["run"]["ended"] == measured["busy"]["ended"] == measured["burst"]["ended"] == 1
    assert measured["followers"]["delivered"] == measured["followers"]["ends"] == 1
    lines = report.table([OURS], results)
    assert len(lines) == 2 + len(FIGURES)


async def test_a_wrong_result_is_an_error_and_no_figure():
    with pytest.raises(RuntimeError, match="is wrong"):
        await measures.run(WrongPage, 0, runs=1, seconds=1, pause=0)
    with pytest.raises(RuntimeError, match="is wrong"):
        await measures.burst(WrongPage, 0, runs=2, at_once=1, seconds=1)


async def test_a_run_that_fails_is_counted_and_no_error():
    figures = await measures.burst(FailingPage, 0, runs=3, at_once=1, seconds=1)
    assert (figures["runs"], figures["ended"]) == (3, 0)
    assert (await measures.run(FailingPage, 0, runs=1, seconds=1, pause=0))["ended"] == 0


@pytest.mark.parametrize("said", [[1, 1, 2], [2, 1]])
def test_messages_that_repeat_or_change_places_are_an_error(said):
    told = [(1.0, Event("message", value)) for value in said]
    with pytest.raises(RuntimeError, match="messages"):
        measures.what_was_told([told], opened=0.0, calls=0, messages=len(said))


def test_a_subscriber_that_misses_a_message_or_the_end_is_seen():
    whole = [(1.0, Event("message", 1)), (1.1, Event("message", 2)), (1.2, Event("end", 3))]
    figures = measures.what_was_told([whole, whole[:1]], opened=0.0, calls=0, messages=2)
    assert (figures["delivered"], figures["ends"]) == (0.75, 0.5)


def test_each_measure_of_growth_gets_everything_that_it_asks_for(databases, tmp_path):
    with Servers(OURS, databases.new("sqlite"), tmp_path) as servers:
        load = servers.client("open_loop", rate=50, seconds=0.5)
        idle = servers.client("idle", sockets=20, runs=5, pid=servers.web_pid)
        together = servers.client("on_one_socket", runs=50)
        listed = servers.client("long_list", numbers=10_000, runs=1)
        said = servers.client("many_messages", messages=1_000)
        servers.script("fill", 2_000)
        filled = servers.client("run", runs=5, seconds=1, pause=0)
    assert load["ended"] == filled["ended"] == 1
    assert all(math.isfinite(figures["seconds"]) for figures in (together, said))
    assert all(math.isfinite(figures["p50"]) for figures in (load, idle, listed, filled))


def test_the_chart_has_a_bar_for_each_stack_that_was_measured():
    rounds = {"ours": {"run": [{"p50": 0.004}]}, "afternoon": {"run": [{"p50": 0.26}]}}
    svg = ET.fromstring(chart.drawn([OURS, *PEERS], rounds))  # noqa: S314 - our own
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == ["here", "4 ms", "Channels + arq in an afternoon", "260 ms"]


def test_what_a_soak_reports_becomes_a_table_with_a_column_for_each_storm():
    storms = [{"seed": 7, "runs": 1000, "faults": {"kill_worker": 2, "flush": 9}}, {"seed": 7, "new": "x"}]
    lines = soak.rendered(storms).splitlines()
    assert "| seed | 7 | 7 |" in lines
    assert f"| faults | flush 9; kill worker 2 | {report.NONE} |" in lines
    assert f"| new | {report.NONE} | x |" in lines


# Beside the code before


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is not a git repository: there is no earlier code")
def test_the_code_before_is_measured_with_its_own_package_and_the_project_that_is_here(tmp_path):
    stack = before.stack_of("HEAD")
    as_daphne = "import sys; sys.path.insert(0, '.'); "  # it imports first from the folder where it is started
    imported = f"{as_daphne}import taskapi, benchmarks; print(taskapi.__file__, benchmarks.__file__)"
    servers = [Servers(each, {}, tmp_path) for each in (OURS, stack)]
    (ours, project), (earlier, the_same) = (map(Path, one._run("-c", imported).split()) for one in servers)
    assert ours.parent == ROOT / "taskapi"
    assert earlier.parent == stack.source / "taskapi"
    assert project == the_same == ROOT / "benchmarks" / "__init__.py"


def _measured(here, earlier):
    """Results of one measure with two figures, with as many rounds on both."""
    return {
        name: {"poll": [{"p50": value, "rate": 1 / value} for value in values]}
        for name, values in (("ours", here), ("before", earlier))
    }


def test_figures_are_compared_round_by_round_and_what_is_worse_is_said():
    slow, fast = [0.2, 2.2, 0.2], [0.1, 1.0, 0.1]  # the machine was slow for a while
    p50, rate, _ = (figure for figure in FIGURES if figure.measure == "poll")
    assert before.ratios(p50, _measured(slow, fast)) == pytest.approx([2, 2.2, 2])
    assert before.worse_by(rate, _measured(slow, fast)) == pytest.approx([2, 2.2, 2])
    assert "2.00 times worse than before (2.00 to 2.20 in 3 rounds)" in "\n".join(before.told(_measured(slow, fast)))
    assert before.told(_measured(fast, slow))[-1] == "None of them is worse than 1.05 times what it was."


def test_a_figure_that_was_better_in_some_rounds_is_said_to_be_unsure():
    lines = before.told(_measured([0.2, 0.2, 0.1], [0.1, 0.1, 0.2]))
    assert "in 1 of them it was better than before, so this may be noise" in lines[-1]


def test_the_table_has_a_column_for_the_ratio():
    stack = before.replace(OURS, name=before.NAME, title="before: abc")
    head, _, p50, rate = report.table([OURS, stack], _measured([0.2], [0.1]))
    assert head == "|  | here | before: abc | here / before | here, wanted |"
    assert "| **2.00** |" in p50
    assert "| **0.50** |" in rate


def test_what_seems_to_be_worse_is_measured_again_on_both(monkeypatch):
    session = Session(None, "sqlite", QUICK)
    session.results |= _measured([0.2], [0.1])
    asked = []
    monkeypatch.setattr(session, "measure", lambda *order: asked.append(order))
    before.measure_again(session, "the code before", 1, None)
    assert asked == [([OURS, "the code before"], 2, {"poll"})]
    session.results |= _measured([0.1], [0.1])
    before.measure_again(session, "the code before", 1, None)
    assert len(asked) == 1
