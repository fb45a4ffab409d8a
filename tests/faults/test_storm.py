"""All faults at random, on runs and subscribers of all kinds; in the end, each promise is checked on each of them.

`make test` runs the short form. `make soak` takes FAULT_SECONDS (how long faults strike) and FAULT_RUNS (the least
number of runs), and goes on until it has had both. FAULT_SEED repeats a storm, and FAULT_REPORT is a file for the
figures. FAULT_KINDS says what a storm has beside plain runs and plain faults: all, none, or some (kinds.py).
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.faults import kinds
from tests.faults.pages import chromium, chromium_path
from tests.faults.stack import CALM, FaultStack
from tests.faults.storm import Storm
from tests.faults.striking import FAULTS
from tests.support.databases import Databases

SECONDS = float(os.environ.get("FAULT_SECONDS") or 18)
RUNS = int(os.environ.get("FAULT_RUNS") or 50)
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(1, 10**6))
KINDS = kinds.chosen(os.environ.get("FAULT_KINDS") or "all")
REPORT = os.environ.get("FAULT_REPORT")

LONG = SECONDS >= 60  # enough for each fault to strike, whatever the seed
WORKERS = ("one", "two", "three")
WEBS = ("web", "web2")
GRACE = "1"  # seconds: a worker that is told to end hands back what it executes
FOLLOWERS = 24  # connected at the same time, at least once

# The long form takes one layer after the other. The short form takes both at once, each with its own servers: most of
# a storm is waiting.
STORMS = [["default"], ["core"]] if LONG else [["default", "core"]]

pytestmark = pytest.mark.timeout(2 * SECONDS + 4 * CALM + 120)

logging.getLogger("httpx").setLevel(logging.WARNING)  # otherwise a line for each of thousands of requests


@pytest.fixture(scope="module")
def report() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Print the figures of a storm, and write them to a line of the report."""
    with ExitStack() as files:
        file = files.enter_context(Path(REPORT).open("w")) if REPORT else None

        def tell(figures: dict[str, Any]) -> None:
            line = json.dumps(figures)
            print(line)  # noqa: T201
            if file is not None:
                print(line, file=file, flush=True)

        yield tell


@pytest.fixture
def browser_path() -> str | None:
    """The path of Chromium, if a kind of this storm needs it."""
    return chromium_path() if KINDS & {"pages", "stranger"} else None


@pytest.fixture
def stacks(layers: list[str], tmp_path: Path) -> Iterator[list[FaultStack]]:
    """A stack for each of the channel layers, each with its own PostgreSQL."""
    with ExitStack() as running:

        def start(layer: str) -> FaultStack:
            (tmp_path / layer).mkdir()
            databases = Databases()
            running.callback(databases.close)
            stack = FaultStack(databases, "postgres", tmp_path / layer, layer, workers=WORKERS, webs=WEBS)
            stack.options = ("--grace", GRACE)
            return running.enter_context(stack)

        yield [start(layer) for layer in layers]


async def storm_over(stack: FaultStack, browser: Browser | None) -> tuple[list[str], dict[str, Any]]:
    """What went wrong, and the figures."""
    storm = Storm(stack, SEED, SECONDS, RUNS, kinds=KINDS, browser=browser)
    try:
        await storm.run()
        return await storm.account.check(), storm.account.figures()
    finally:
        await storm.close()


@pytest.mark.parametrize("layers", STORMS, ids=" and ".join)
async def test_whatever_is_killed_cut_or_restarted_each_promise_holds_for_each_run_and_subscriber(
    layers, browser_path, stacks, report
):
    print(f"\nFAULT_SEED={SEED} FAULT_KINDS={','.join(sorted(KINDS)) or 'none'}")  # noqa: T201 - shown if it fails, and by `make soak`
    async with AsyncExitStack() as running, asyncio.TaskGroup() as group:
        browser = await running.enter_async_context(chromium(browser_path)) if browser_path else None
        storms = [group.create_task(storm_over(stack, browser)) for stack in stacks]
    for layer, storm in zip(layers, storms, strict=True):
        report({"layer": layer, "seed": SEED, **storm.result()[1]})
    for layer, storm in zip(layers, storms, strict=True):
        wrong, figures = storm.result()
        assert not wrong, "\n".join(wrong)
        assert [figures[name] for name in ("lost", "stuck", "broken")] == [0, 0, 0]
        assert figures["runs"] >= RUNS
        assert figures["most followers at once"] >= FOLLOWERS
        assert min(figures[who] for who in ("pollers", "waiters", "readers of streams")) > 0
        assert set(figures["executions by worker"]) == set(WORKERS)
        assert set(figures["subscriptions by server"]) == set(WEBS)
        assert figures["taken up"] > 0
        assert figures["runs of zombies"] > 0
        assert figures["promises of pages settled"] == figures["promises of pages"]
        assert bool(figures["promises of pages"]) == bool(KINDS & {"pages", "stranger"})
        assert set(figures["runs of kinds"]) >= KINDS - {*kinds.FAULT_OF, "pages"}
        assert (figures["executions of isolated tasks"] > 0) == ("isolated" in KINDS)
        if LONG:
            struck = {fault for kind, fault in kinds.FAULT_OF.items() if kind in KINDS}
            assert set(figures["faults"]) == {*FAULTS, *struck}
            assert (figures["events dropped"] > 0) == (layer == "core")
