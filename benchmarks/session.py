"""One session of measuring: all stacks in each round, so that a slow moment of the machine affects all of them."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Rounds
from benchmarks.servers import Servers
from benchmarks.stacks import OURS, Stack
from tests.support.databases import Databases

Results = dict[str, dict[str, Rounds]]  # by the names of the stack and of the measure


@dataclass(frozen=True)
class Sizes:
    """How much of each measure."""

    runs: int  # one after another, and starts
    answers: int  # to polls; a few hundred would be over before the first collection of garbage
    seconds: float  # at most, for these
    burst: int  # runs, `at_once` at a time
    at_once: int
    burst_seconds: float  # at most
    calls: float  # share of the stack's own number
    subscribers: int
    told_seconds: float
    progress: int  # calls a second, to the subscribers
    sockets: int
    computing: float  # seconds
    waiting: int  # long polls, and as many streams


FULL = Sizes(300, 2_000, 6, 2_000, 50, 15, 1, 200, 10, 100, 1_000, 2, 500)
QUICK = Sizes(20, 20, 2, 60, 10, 5, 0.1, 20, 1, 50, 50, 0.5, 20)


class Session:
    """Measures stacks on new databases of one kind."""

    def __init__(self, databases: Databases, kind: str, sizes: Sizes) -> None:
        self.databases = databases
        self.kind = kind
        self.sizes = sizes
        self.results: Results = defaultdict(lambda: defaultdict(list))

    def measure(self, stacks: Sequence[Stack], rounds: int, only: Collection[str] | None = None) -> Results:
        """Measure everything, or `only` those measures; every other round begins with the last stack."""
        for number in range(rounds):
            for stack in stacks[:: -1 if number % 2 else 1]:
                measures = [measure for measure in stack.measures if only is None or measure in only]
                if measures:
                    print(f"Round {number + 1} of {rounds}: {stack.name}", file=sys.stderr)
                    self._round(stack, measures)
        return self.results

    def _round(self, stack: Stack, measures: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            with Servers(stack, self.databases.new(self.kind), directory) as servers:
                for measure in measures:
                    self._measure(servers, measure)

    def _measure(self, servers: Servers, measure: str) -> None:
        """Keep the figures of one measure. If a peer fails, it has none, and the session goes on."""
        before = servers.processor_time()
        try:
            figures = _measured(servers, measure, self.sizes)
        except subprocess.SubprocessError as error:
            if servers.stack is OURS:
                raise
            print(f"{servers.stack.name} has no figures of {measure!r}: {error}", file=sys.stderr)
            return
        spent = {name: time - before[name] for name, time in servers.processor_time().items()}
        runs = figures.get("runs", math.nan)
        figures |= {f"{name}_time": seconds / runs for name, seconds in spent.items()}
        self.results[servers.stack.name][measure].append(figures)


def _measured(servers: Servers, measure: str, sizes: Sizes) -> dict[str, float]:
    stack = servers.stack
    calls = int(stack.calls * sizes.calls)
    match measure, stack.name:
        case "burst", "floors":
            return servers.script("burst", sizes.burst)
        case "call", "floors":
            return servers.script("call", calls)
        case "start", _:
            return _starts(servers.script("enqueue", sizes.runs, sizes.seconds, stack.pause))
        case "memory", _:
            page = stack.idle_page or stack.page
            return servers.client("memory", page=page, sockets=sizes.sockets, pid=servers.web_pid)
        case "rest" | "poll", _:  # ours is asked in the way of 1.x
            options = _options(servers, measure, sizes, calls)
            return servers.client({"rest": "run"}.get(measure, measure), page="task_api_1", **options)
        case _:
            return servers.client(measure, **_options(servers, measure, sizes, calls))


def _options(servers: Servers, measure: str, sizes: Sizes, calls: int) -> dict[str, Any]:
    return {
        "run": {"runs": sizes.runs, "seconds": sizes.seconds, "pause": servers.stack.pause},
        "rest": {"runs": sizes.runs, "seconds": sizes.seconds, "pause": 0},
        "poll": {"answers": sizes.answers, "pages_at_once": 10},
        "busy": {"seconds": sizes.computing},
        "crowd": {
            "directory": str(servers.directory),
            "waiting": sizes.waiting,
            "runs": sizes.runs,
            "seconds": sizes.seconds,
        },
        "answer": {"runs": sizes.runs},
        "burst": {"runs": sizes.burst, "at_once": sizes.at_once, "seconds": sizes.burst_seconds},
        "call": {"calls": calls},
        "followers": {
            "directory": str(servers.directory),
            "count": sizes.subscribers,
            "seconds": sizes.told_seconds,
            "progress": sizes.progress,
            "messages": servers.stack.messages,
        },
    }[measure]


def _starts(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {key: ordered[round(share * (len(ordered) - 1))] for key, share in (("p50", 0.5), ("p99", 0.99))}
