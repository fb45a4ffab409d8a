"""The one table of figures: what is measured, in which unit, and what ours must reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

Rounds = list[dict[str, float]]  # one measure's figures, a round each


@dataclass(frozen=True)
class Figure:
    """One line of the table: the value `key` of a measure, times `factor` for the unit."""

    measure: str
    key: str
    title: str
    unit: str
    factor: float = 1.0
    at_most: float | None = None  # | in the unit
    at_least: float | None = None  # |
    of_rounds: Callable[[list[float]], float] = statistics.median
    charted: bool = True

    def value(self, rounds: Rounds) -> float | None:
        """The value of all rounds together, in the unit; None if it was not measured."""
        values = [figures[self.key] for figures in rounds if not math.isnan(figures.get(self.key, math.nan))]
        return self.of_rounds(values) * self.factor if values else None

    @property
    def more_is_better(self) -> bool:
        return self.at_least is not None or self.unit.endswith("/s")

    @property
    def bound(self) -> str:
        """What ours must reach; empty if nothing is asked."""
        if self.at_most is not None:
            return f"≤ {shown(self.at_most)} {self.unit}"
        return f"≥ {shown(self.at_least)} {self.unit}" if self.at_least is not None else ""


MILLISECONDS, MICROSECONDS, PERCENT, KILOBYTES = 1e3, 1e6, 100.0, 1 / 1024


def _share(measure: str, key: str, title: str) -> Figure:
    """A share that has to be 100 % in every round."""
    return Figure(measure, key, title, "%", PERCENT, at_least=100, of_rounds=min, charted=False)


def _processor_time(of: str, title: str) -> Figure:
    """Processor time, which a busy machine changes least."""
    return Figure(
        "burst", f"{of}_time", f"2,000 `sum`: processor time a run, {title}", "ms", MILLISECONDS, charted=False
    )


FIGURES = (
    Figure("run", "p50", "`sum`: run to finished known, p50", "ms", MILLISECONDS, at_most=5),
    Figure("run", "p99", "`sum`: run to finished known, p99", "ms", MILLISECONDS, at_most=15),
    Figure("busy", "p50", "`sum` while a task computes in the worker, p50", "ms", MILLISECONDS),
    Figure("answer", "p50", "a frame that asks for nothing, answered, p50", "ms", MILLISECONDS),
    Figure("start", "p50", "enqueue to start, p50", "ms", MILLISECONDS, at_most=1.2),
    Figure("start", "p99", "enqueue to start, p99", "ms", MILLISECONDS, charted=False),
    Figure("burst", "rate", "2,000 `sum`, 50 at a time", "runs/s", at_least=500),
    _share("burst", "ended", "2,000 `sum`: end for their client"),
    _processor_time("web", "daphne"),
    _processor_time("worker", "worker"),
    _processor_time("valkey", "Valkey"),
    Figure("call", "seconds", "one progress call in a loop", "µs", MICROSECONDS, at_most=0.5),
    _share("followers", "delivered", "200 subscribers: events told"),
    _share("followers", "ends", "200 subscribers: ends told"),
    Figure("followers", "p50", "200 subscribers: delay, p50", "ms", MILLISECONDS),
    Figure("followers", "p99", "200 subscribers: delay, p99", "ms", MILLISECONDS, at_most=250),
    Figure("rest", "p50", "`sum` by REST, asked for at once and then every 50 ms, p50", "ms", MILLISECONDS),
    Figure("poll", "p50", "a finished run, asked for by REST, p50", "ms", MILLISECONDS),
    Figure("poll", "rate", "the same by 10 pages at once", "answers/s"),
    Figure("poll", "unchanged", "the same if they know its entity tag", "answers/s"),
    Figure("crowd", "p50", "`sum` beside 500 long polls and 500 event streams, p50", "ms", MILLISECONDS, charted=False),
    Figure("crowd", "p99", "the same, p99", "ms", MILLISECONDS, at_most=50, charted=False),
    _share("crowd", "ended", "these polls and streams: told everything"),
    Figure("memory", "per_socket", "memory a connected socket", "KB", KILOBYTES, at_most=30),
)


def shown(value: float) -> str:
    """The value with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
