"""Columns by kind: how the kind is guessed, how cells are read, and what is reported about the values."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from statistics import quantiles
from typing import Any, ClassVar

from demo.profiling.histograms import date_histogram, histogram
from demo.profiling.table import Table, shorten

SAMPLED_ROWS = 1_000  # spread over the whole file: the kind of a column is guessed from these
MAJORITY = 0.75  # of a column's values must be numbers to make it a column of numbers: one in four may be wrong
MAX_DISTINCT = 50_000  # values remembered for each column: a limit for the memory
TOP_VALUES = 10
TOP_SHAPES = 3
MAX_VARIANTS = 5  # sets of values that may be one value in several spellings: enough to see a pattern

BAD_BYTE = "\ufffd"  # a decoder puts this in place of bytes that are not text
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)  # not 007: that is a code
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?", re.ASCII)
LARGEST_NUMBER = 1e100  # in a column of numbers: sums stay finite, and no real measurement is larger
SHAPES = str.maketrans(string.ascii_letters + string.digits, "a" * 26 + "A" * 26 + "9" * 10)
BOOLEANS = {"true": True, "false": False, "yes": True, "no": False}


@dataclass(slots=True)
class Column:
    """What is known about one column so far. A subclass reads its cells and reports about its values."""

    kind: ClassVar[str]
    expected: ClassVar[str]

    name: str
    count: int = 0
    missing: int = 0
    invalid: int = 0
    seen: Counter[Any] = field(default_factory=Counter)

    def add(self, cell: str) -> str | None:
        """Add one cell; return what is wrong with it, or None."""
        cell = cell.strip()
        if not cell:
            self.missing += 1
            return None
        if BAD_BYTE in cell:
            self.invalid += 1
            return f"{self.name}: “{shorten(cell)}” holds bytes that are not UTF-8"
        value = self.convert(cell)
        if value is None:
            self.invalid += 1
            return f"{self.name}: {self.expected} was expected, “{shorten(cell)}” came"
        self.count += 1
        if len(self.seen) < MAX_DISTINCT or value in self.seen:
            self.seen[value] += 1
        self.keep(value)
        return None

    def convert(self, cell: str) -> Any | None:
        raise NotImplementedError

    def keep(self, value: Any) -> None:
        """Remember more about a value than its count; a hook for subclasses."""

    def details(self) -> dict[str, Any]:
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        common = {
            "name": self.name,
            "kind": self.kind,
            "count": self.count,
            "missing": self.missing,
            "invalid": self.invalid,
            "distinct": len(self.seen),
            "distinct_is_bound": len(self.seen) >= MAX_DISTINCT,
        }
        return common | (self.details() if self.count else {})


@dataclass(slots=True)
class NumberColumn(Column):
    kind = "number"
    expected = "a number"

    numbers: array[float] = field(default_factory=lambda: array("d"))

    def convert(self, cell: str) -> float | None:
        return to_number(cell)

    def keep(self, value: float) -> None:
        self.numbers.append(value)

    def details(self) -> dict[str, Any]:
        lowest, highest = min(self.numbers), max(self.numbers)
        low, median, high = quantiles(self.numbers, n=4, method="inclusive") if self.count > 1 else [lowest] * 3
        integers = all(number.is_integer() for number in self.seen)
        return {
            "integers": integers,
            "min": lowest,
            "max": highest,
            "mean": math.fsum(self.numbers) / self.count,
            "quartiles": [low, median, high],
            "histogram": histogram(self.numbers, integers=integers),
        }


@dataclass(slots=True)
class DateColumn(Column):
    kind = "date"
    expected = "a date (2024-12-31)"

    def convert(self, cell: str) -> date | None:
        return to_date(cell)

    def details(self) -> dict[str, Any]:
        return {
            "min": min(self.seen).isoformat(),
            "max": max(self.seen).isoformat(),
            "histogram": date_histogram(self.seen),
        }


@dataclass(slots=True)
class BooleanColumn(Column):
    kind = "boolean"
    expected = "true or false"

    def convert(self, cell: str) -> bool | None:
        return to_boolean(cell)

    def details(self) -> dict[str, Any]:
        return {"top": [[str(value).lower(), count] for value, count in self.seen.most_common()]}


@dataclass(slots=True)
class TextColumn(Column):
    kind = "text"
    expected = "text"

    shapes: Counter[str] = field(default_factory=Counter)
    spellings: dict[str, list[str]] = field(default_factory=dict)

    def convert(self, cell: str) -> str:
        return cell

    def keep(self, value: str) -> None:
        shape = shape_of(value)
        if len(self.shapes) < MAX_DISTINCT or shape in self.shapes:
            self.shapes[shape] += 1
        if self.seen.get(value) == 1:
            self.spellings.setdefault(fold(value), []).append(value)

    def details(self) -> dict[str, Any]:
        lengths = [len(value) for value in self.seen]
        variants = sorted(filter(lambda spellings: len(spellings) > 1, self.spellings.values()), key=len, reverse=True)
        return {
            "top": [[shorten(value), count] for value, count in self.seen.most_common(TOP_VALUES)],
            "lengths": [min(lengths), max(lengths)],
            "shapes": [[shorten(shape), count] for shape, count in self.shapes.most_common(TOP_SHAPES)],
            "variants": [[shorten(value) for value in spellings] for spellings in variants[:MAX_VARIANTS]],
            "variant_count": len(variants),
        }


def shape_of(value: str) -> str:
    """Return the pattern of a code: "KLAX-07" gives "AAAA-99"."""
    return value.translate(SHAPES)


def fold(value: str) -> str:
    """Return a key that is the same for all spellings of one value: for "São  Paulo" and "sao paulo", say."""
    letters = unicodedata.normalize("NFKD", value.casefold())
    return " ".join("".join(letter for letter in letters if not unicodedata.combining(letter)).split())


def to_number(cell: str) -> float | None:
    if not NUMBER.fullmatch(cell):
        return None
    number = float(cell)
    return number if abs(number) <= LARGEST_NUMBER else None


def to_date(cell: str) -> date | None:
    if not ISO_DATE.fullmatch(cell):
        return None
    try:
        return datetime.fromisoformat(cell).date()
    except ValueError:
        return None


def to_boolean(cell: str) -> bool | None:
    return BOOLEANS.get(cell.lower())


def columns_for(table: Table) -> list[Column]:
    """Return an empty column for each name in the header, of the kind of most of its values."""
    rows = [row for row in table.rows if len(row.cells) == len(table.header)]
    sample = rows[:: math.ceil(len(rows) / SAMPLED_ROWS)] if rows else []
    return [
        column_class(cell for row in sample if (cell := row.cells[index].strip()))(name)
        for index, name in enumerate(table.header)
    ]


def column_class(cells: Iterator[str]) -> type[Column]:
    votes: Counter[type[Column]] = Counter(map(class_of_cell, cells))
    if not votes:
        return TextColumn
    winner, share = votes.most_common(1)[0]
    return winner if share >= MAJORITY * votes.total() else TextColumn


def class_of_cell(cell: str) -> type[Column]:
    if to_number(cell) is not None:
        return NumberColumn
    if to_date(cell) is not None:
        return DateColumn
    if to_boolean(cell) is not None:
        return BooleanColumn
    return TextColumn
