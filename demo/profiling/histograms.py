"""Histograms: bars of round widths for numbers, of calendar units for dates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

MAX_BINS = 40  # bars in a histogram: on a phone, more would run into one another
ROUNDING = 1e-9  # of a bar's width: 2.4 / 0.1 is 23.999…, but 2.4 belongs to the bar that begins there
SMALLEST_WIDTH = 1e-300  # of a bar: floating point numbers are not exact below it


def bar_limit(values: int) -> int:
    """Return the number of bars for that many values: twice the cube root (the Rice rule), at most MAX_BINS."""
    return min(MAX_BINS, math.ceil(2 * math.cbrt(values)))


def histogram(
    spread: Counter[float], lowest: float, highest: float, *, integers: bool, total: int
) -> list[dict[str, float]]:
    """Return bars of one round width from the lowest to the highest number; each includes `from` and excludes `to`.

    `spread` counts the numbers, or some of them: the bars show its shape, and hold `total` numbers together.
    """
    step = round_step((highest - lowest) / bar_limit(total))
    if integers:
        step = max(1, step)
    first = math.floor(lowest / step + ROUNDING)
    counts: Counter[int] = Counter()
    for number, count in spread.items():
        counts[math.floor(number / step + ROUNDING) - first] += count
    scale = total / spread.total()
    return [
        {"from": tidy((first + i) * step), "to": tidy((first + i + 1) * step), "count": round(counts[i] * scale)}
        for i in range(math.floor(highest / step + ROUNDING) - first + 1)
    ]


def round_step(width: float) -> float:
    """Return 1, 2, 2.5, 5 or 10 times a power of ten: the smallest that is at least `width`; 1 for a tiny width."""
    if width < SMALLEST_WIDTH:
        return 1
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 2.5, 5, 10, 20) if step * power >= width)


def tidy(number: float) -> float:
    """Remove rounding errors: 0.30000000000000004 becomes 0.3."""
    return float(f"{number:.12g}")


# Units of the calendar (day to decade), each as two functions: the unit's number for a date, and its name by number.
CALENDAR: Sequence[tuple[Callable[[date], int], Callable[[int], str]]] = (
    (lambda day: day.toordinal(), lambda number: date.fromordinal(number).isoformat()),
    (lambda day: (day.toordinal() - 1) // 7, lambda number: f"week of {date.fromordinal(number * 7 + 1).isoformat()}"),
    (lambda day: day.year * 12 + day.month - 1, lambda number: f"{number // 12:04}-{number % 12 + 1:02}"),
    (lambda day: day.year, str),
    (lambda day: day.year // 10, lambda number: f"{number * 10}s"),
)


def date_histogram(dates: Counter[date]) -> list[dict[str, Any]]:
    """Return a bar for each day, week, month, year or decade: the smallest unit within bar_limit."""
    limit = bar_limit(dates.total())
    first_day, last_day = min(dates), max(dates)
    number_of, name_of = next(
        ((number_of, name_of) for number_of, name_of in CALENDAR if number_of(last_day) - number_of(first_day) < limit),
        CALENDAR[-1],
    )
    counts: Counter[int] = Counter()
    for day, count in dates.items():
        counts[number_of(day)] += count
    return [
        {"from": name_of(number), "to": name_of(number), "count": counts[number]}
        for number in range(number_of(first_day), number_of(last_day) + 1)
    ]
