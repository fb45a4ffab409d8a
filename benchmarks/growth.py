"""Ours under growing load: each line is measured once, on its own servers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.figures import KILOBYTES, shown
from benchmarks.servers import Servers
from benchmarks.stacks import OURS
from tests.support.databases import Databases

Row = tuple[str, str, str]  # what, measured, wanted


@dataclass(frozen=True)
class Sizes:
    """How much of each part."""

    rates: tuple[int, ...]  # runs a second
    seconds: float  # at each rate
    processes: tuple[int, ...]
    burst: int  # runs, 50 at a time
    sockets: tuple[int, ...]
    at_once: int  # runs on one socket
    numbers: int  # in one list
    messages: int  # of one run
    rows: int
    runs: int  # one after another, for latencies


FULL = Sizes((10, 100, 300, 1_000), 10, (1, 2, 4), 2_000, (0, 1_000, 5_000), 1_000, 100_000, 100_000, 1_000_000, 300)
QUICK = Sizes((10, 20), 1, (1, 2), 60, (0, 50), 20, 1_000, 1_000, 5_000, 20)


class Growth:
    """Measures ours on new databases of one kind."""

    def __init__(self, databases: Databases, kind: str, sizes: Sizes) -> None:
        self.databases = databases
        self.kind = kind
        self.sizes = sizes

    def measure(self, only: str | None = None) -> list[Row]:
        """All rows, or those of one part."""
        rows: list[Row] = []
        for name, part in PARTS.items():
            if only in (None, name):
                print(f"Growth: {name}", file=sys.stderr)
                rows += part(self)
        return rows

    def load(self) -> Iterator[Row]:
        for rate in self.sizes.rates:
            with self._servers() as servers:
                found = servers.client("open_loop", rate=rate, seconds=self.sizes.seconds)
            yield (
                f"{rate:,} runs/s offered for {self.sizes.seconds:g} s",
                f"{shown(found['rate'])} runs/s end, p50 {_milliseconds(found['p50'])}, p99 "
                f"{_milliseconds(found['p99'])}; {_percent(found['ended'])} end, the last {shown(found['drained'])} s "
                f"after the load; as quick as before {shown(found['back'])} s after it",
                "all end",
            )

    def processes(self) -> Iterator[Row]:
        for count in self.sizes.processes:
            with self._servers("--processes", str(count)) as servers:
                found = servers.client("burst", runs=self.sizes.burst, at_once=50, seconds=60)
            yield (
                f"{self.sizes.burst:,} `sum`, 50 at a time, worker processes: {count}",
                f"{shown(found['rate'])} runs/s, {_percent(found['ended'])} end",
                "all end",
            )

    def sockets(self) -> Iterator[Row]:
        for count in self.sizes.sockets:
            with self._servers() as servers:
                found = servers.client("idle", sockets=count, runs=self.sizes.runs, pid=servers.web_pid)
            memory = f", {shown(found['per_socket'] * KILOBYTES)} KB a socket" if count else ""
            yield (
                f"`sum` beside {count:,} idle sockets",
                f"p50 {_milliseconds(found['p50'])}, p99 {_milliseconds(found['p99'])}{memory}",
                "≤ 30 KB a socket" if count else "",
            )

    def one_socket(self) -> Iterator[Row]:
        with self._servers() as servers:
            found = servers.client("on_one_socket", runs=self.sizes.at_once)
        yield (
            f"{self.sizes.at_once:,} runs at once on one socket",
            f"{shown(found['seconds'])} s, {shown(found['rate'])} runs/s",
            "all end",
        )

    def long_list(self) -> Iterator[Row]:
        with self._servers() as servers:
            found = servers.client("long_list", numbers=self.sizes.numbers, runs=5)
        yield f"`sum` of {self.sizes.numbers:,} numbers, p50", _milliseconds(found["p50"]), ""

    def messages(self) -> Iterator[Row]:
        with self._servers() as servers:
            found = servers.client("many_messages", messages=self.sizes.messages)
        yield (
            f"a run with {self.sizes.messages:,} messages, followed",
            f"{shown(found['seconds'])} s, {shown(found['rate'])} messages/s",
            "all arrive, in order",
        )

    def rows(self) -> Iterator[Row]:
        """The two tables take turns, so that a slow moment of the machine affects both."""
        with self._servers() as empty, self._servers() as full:
            full.script("fill", self.sizes.rows)
            order = {"runs": self.sizes.runs, "seconds": 30, "pause": 0}
            pairs = [(empty.client("run", **order)["p50"], full.client("run", **order)["p50"]) for _ in range(3)]
        few, many = (median(times) for times in zip(*pairs, strict=True))
        yield (
            f"`sum` beside {self.sizes.rows:,} finished runs, p50",
            f"{_milliseconds(many)}; on an empty table {_milliseconds(few)}: {shown(many / few)} times that",
            "≤ 1.2 times",
        )

    @contextmanager
    def _servers(self, *worker: str) -> Iterator[Servers]:
        stack = replace(OURS, worker=(*OURS.worker, *worker))
        with (
            tempfile.TemporaryDirectory() as name,
            Servers(stack, self.databases.new(self.kind), Path(name)) as servers,
        ):
            yield servers


PARTS: dict[str, Callable[[Growth], Iterator[Row]]] = {
    "load": Growth.load,
    "processes": Growth.processes,
    "sockets": Growth.sockets,
    "one-socket": Growth.one_socket,
    "long-list": Growth.long_list,
    "messages": Growth.messages,
    "rows": Growth.rows,
}


def _milliseconds(seconds: float) -> str:
    return f"{shown(seconds * 1e3)} ms"


def _percent(share: float) -> str:
    return f"{shown(100 * share)} %"
