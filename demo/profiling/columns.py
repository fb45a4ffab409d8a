"""Columns by kind: how the kind is guessed, how cells are read, and what is reported about the values.

Cells come in batches, and each step is made for a whole batch: millions of calls for single cells would take minutes.
What a column remembers is bounded, however many cells there are.
"""

from __future__ import annotations

import math
import random
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from statistics import quantiles
from typing import Any, ClassVar, Generic, TypeVar

from demo.profiling.encoding import BAD_BYTE
from demo.profiling.histograms import date_histogram, histogram
from demo.profiling.numerals import Style, style_of
from demo.profiling.table import Table, shorten

MAJORITY = 0.75  # of a column's values must be numbers to make it a column of numbers: one in four may be wrong
MAX_DISTINCT = 50_000  # values remembered for each column: a limit for the memory
MAX_REMEMBERED = 400_000  # values remembered for all columns together: 100 bytes each, or twice that
MAX_KEPT_LENGTH = 100  # characters of a value that is remembered: of a longer one, its beginning and a checksum
MAX_DRAWN = 20_000  # numbers drawn at random from a column with more than MAX_DISTINCT: they show how it spreads
TOP_VALUES = 10
TOP_SHAPES = 3
MAX_SHAPES = 5_000  # that are counted
MAX_VARIANTS = 5  # sets of values that may be one value in several spellings: enough to see a pattern

ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?", re.ASCII)
SHAPES = str.maketrans(string.ascii_letters + string.digits, "a" * 26 + "A" * 26 + "9" * 10)
BOOLEANS = {"true": True, "false": False, "yes": True, "no": False}

V = TypeVar("V")  # the values of a column


@dataclass(slots=True)
class Column(Generic[V]):
    """What is known about one column so far. A subclass reads its cells and reports about its values."""

    kind: ClassVar[str]
    expected: ClassVar[str]

    name: str
    max_distinct: int = MAX_DISTINCT
    count: int = 0
    missing: int = 0
    invalid: int = 0
    seen: Counter[V] = field(default_factory=Counter)

    def add(self, cells: Iterable[str]) -> list[tuple[int, str]]:
        """Add some cells; return the position of each that is wrong, with what is wrong with it."""
        cells = list(map(str.strip, cells))
        present = list(filter(None, cells))
        values = self.convert(present)
        self.missing += len(cells) - len(present)
        problems = [] if None not in values else self.problems_of(cells, values)
        good = [value for value in values if value is not None] if problems else values
        self.count += len(good)
        self.invalid += len(problems)
        if good:
            self.keep(good)  # type: ignore[arg-type]  # there is no None among them
        return problems

    def problems_of(self, cells: Sequence[str], values: Iterable[V | None]) -> list[tuple[int, str]]:
        places = (index for index, cell in enumerate(cells) if cell)
        return [
            (index, self.problem(cells[index])) for index, value in zip(places, values, strict=True) if value is None
        ]

    def problem(self, cell: str) -> str:
        if BAD_BYTE in cell:
            return f"{self.name}: “{shorten(cell)}” holds bytes that are not UTF-8"
        return f"{self.name}: {self.expected} was expected, “{shorten(cell)}” came"

    def convert(self, cells: Sequence[str]) -> Sequence[V | None]:
        """Return the value of each cell, or None if it has none."""
        raise NotImplementedError

    def keep(self, values: Sequence[V]) -> None:
        """Remember values."""
        self.remember(Counter(values))

    def remember(self, counts: Mapping[V, int]) -> None:
        """Count values, as far as there is room for them."""
        seen = self.seen
        if len(seen) + len(counts) <= self.max_distinct:
            seen.update(counts)
            return
        for value, count in counts.items():
            if value in seen or len(seen) < self.max_distinct:
                seen[value] += count

    @property
    def is_full(self) -> bool:
        """There may be more values than those that were counted."""
        return len(self.seen) >= self.max_distinct

    def details(self) -> dict[str, Any]:
        raise NotImplementedError

    def chart(self) -> dict[str, Any]:
        """Return a `histogram` or the `top` values: the part of the details that can be drawn."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        common = {
            "name": self.name,
            "kind": self.kind,
            "count": self.count,
            "missing": self.missing,
            "invalid": self.invalid,
            "distinct": len(self.seen),
            "distinct_is_bound": self.is_full,
        }
        return common | (self.details() if self.count else {})


@dataclass(slots=True)
class NumberColumn(Column[float]):
    kind = "number"
    expected = "a number"

    style: Style = Style.POINT
    integers: bool = True  # all of them, so far
    lowest: float = math.inf
    highest: float = -math.inf
    sums: list[float] = field(default_factory=list)  # of each batch
    drawn: list[float] = field(default_factory=list)  # at random, from all numbers
    share: float = 1.0  # of the numbers that are drawn
    dice: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - the same file, the same picture

    def convert(self, cells: Sequence[str]) -> Sequence[float | None]:
        return self.style.to_numbers(cells)

    def keep(self, values: Sequence[float]) -> None:
        self.lowest, self.highest = min(self.lowest, *values), max(self.highest, *values)
        self.integers = self.integers and all(map(float.is_integer, values))
        self.sums.append(math.fsum(values))
        self.draw(values)
        if not self.is_full:  # which are frequent does not matter for numbers
            self.remember(Counter(values))

    def draw(self, values: Sequence[float]) -> None:
        self.drawn += values if self.share == 1 else self.dice.sample(values, round(len(values) * self.share))
        while len(self.drawn) > MAX_DRAWN:
            self.drawn = self.dice.sample(self.drawn, len(self.drawn) // 2)
            self.share /= 2

    def spread(self) -> Counter[float]:
        """Return the numbers and how often each occurs; if there are too many, an estimate from those drawn."""
        return Counter(self.drawn) if self.is_full else self.seen

    def details(self) -> dict[str, Any]:
        numbers = sorted(self.spread().elements())
        low, median, high = quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else numbers * 3
        return {
            "integers": self.integers,
            "min": self.lowest,
            "max": self.highest,
            "mean": math.fsum(self.sums) / self.count,
            "quartiles": [low, median, high],
            **self.chart(),
        }

    def chart(self) -> dict[str, Any]:
        spread = self.spread()
        bars = histogram(spread, self.lowest, self.highest, integers=self.integers, total=self.count)
        return {"histogram": bars, "estimated_from": spread.total() if spread.total() < self.count else None}


@dataclass(slots=True)
class DateColumn(Column[date]):
    kind = "date"
    expected = "a date (2024-12-31)"

    first: date = date.max
    last: date = date.min
    known: dict[str, date | None] = field(default_factory=dict)  # a cell and its date: most dates come again

    def convert(self, cells: Sequence[str]) -> Sequence[date | None]:
        if len(self.known) > self.max_distinct:
            self.known.clear()
        for cell in set(cells) - self.known.keys():
            self.known[cell] = to_date(cell)
        return list(map(self.known.__getitem__, cells))

    def keep(self, values: Sequence[date]) -> None:
        counts = Counter(values)
        self.first, self.last = min(self.first, *counts), max(self.last, *counts)
        self.remember(counts)

    def details(self) -> dict[str, Any]:
        return {"min": self.first.isoformat(), "max": self.last.isoformat(), **self.chart()}

    def chart(self) -> dict[str, Any]:
        return {"histogram": date_histogram(self.seen)}


@dataclass(slots=True)
class BooleanColumn(Column[bool]):
    kind = "boolean"
    expected = "true or false"

    def convert(self, cells: Sequence[str]) -> Sequence[bool | None]:
        return list(map(BOOLEANS.get, map(str.lower, cells)))

    def details(self) -> dict[str, Any]:
        return self.chart()

    def chart(self) -> dict[str, Any]:
        return {"top": [[str(value).lower(), count] for value, count in self.seen.most_common()]}


@dataclass(slots=True)
class TextColumn(Column[str]):
    kind = "text"
    expected = "text"

    shortest: int = 10**9
    longest: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    folded: dict[str, str] = field(default_factory=dict)  # a folded value, and its first spelling
    spellings: dict[str, list[str]] = field(default_factory=dict)  # a folded value, and its spellings, if there are two

    def convert(self, cells: Sequence[str]) -> Sequence[str | None]:
        if BAD_BYTE not in "".join(cells):
            return cells
        return [None if BAD_BYTE in cell else cell for cell in cells]

    def keep(self, values: Sequence[str]) -> None:
        lengths = set(map(len, values))
        self.shortest, self.longest = min(self.shortest, *lengths), max(self.longest, *lengths)
        if max(lengths) > MAX_KEPT_LENGTH:
            values = list(map(kept, values))
        counts = Counter(values)
        for value, count in counts.items():
            shape = value.translate(SHAPES)
            if shape in self.shapes or len(self.shapes) < MAX_SHAPES:
                self.shapes[shape] += count
        if not self.is_full:
            self.compare(counts.keys() - self.seen.keys())
        self.remember(counts)

    def compare(self, values: Iterable[str]) -> None:
        """Find other spellings of values that are new."""
        for value in sorted(values):
            key = fold(value)
            first = self.folded.setdefault(key, value)
            if first != value:
                self.spellings.setdefault(key, [first]).append(value)

    def details(self) -> dict[str, Any]:
        variants = sorted(self.spellings.values(), key=len, reverse=True)
        return {
            **self.chart(),
            "lengths": [self.shortest, self.longest],
            "shapes": [[shorten(shape), count] for shape, count in self.shapes.most_common(TOP_SHAPES)],
            "variants": [[shorten(value) for value in spellings] for spellings in variants[:MAX_VARIANTS]],
            "variant_count": len(variants),
        }

    def chart(self) -> dict[str, Any]:
        return {"top": [[shorten(value), count] for value, count in self.seen.most_common(TOP_VALUES)]}


def kept(value: str) -> str:
    """Return what is remembered of a value: of a long one its beginning, and what tells it from others."""
    return value if len(value) <= MAX_KEPT_LENGTH else f"{value[:MAX_KEPT_LENGTH]}…{hash(value):x}"


def shape_of(value: str) -> str:
    """Return the pattern of a code: "KLAX-07" gives "AAAA-99"."""
    return value.translate(SHAPES)


def fold(value: str) -> str:
    """Return a key that is the same for all spellings of one value: for "São  Paulo" and "sao paulo", say."""
    letters = unicodedata.normalize("NFKD", value.casefold())
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())


def to_date(cell: str) -> date | None:
    if not ISO_DATE.fullmatch(cell):
        return None
    try:
        return datetime.fromisoformat(cell).date()
    except ValueError:
        return None


def columns_for(table: Table) -> list[Column[Any]]:
    """Return an empty column for each name in the header, of the kind of most of the sampled values."""
    limit = max(1, min(MAX_DISTINCT, MAX_REMEMBERED // len(table.header)))
    columns: list[Column[Any]] = []
    for index, name in enumerate(table.header):
        cells = [cell for row in table.sample if (cell := row[index].strip())]
        style = style_of(cells, table.delimiter)
        kind = column_class(cells, style)
        columns.append(NumberColumn(name, limit, style=style) if kind is NumberColumn else kind(name, limit))
    return columns


def column_class(cells: Iterable[str], style: Style) -> type[Column[Any]]:
    votes = Counter(class_of_cell(cell, style) for cell in cells)
    if not votes:
        return TextColumn
    winner, share = votes.most_common(1)[0]
    return winner if share >= MAJORITY * votes.total() else TextColumn


def class_of_cell(cell: str, style: Style) -> type[Column[Any]]:
    if style.to_number(cell) is not None:
        return NumberColumn
    if to_date(cell) is not None:
        return DateColumn
    if cell.lower() in BOOLEANS:
        return BooleanColumn
    return TextColumn
