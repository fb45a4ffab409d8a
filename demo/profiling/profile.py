"""Profiles one table, and chooses the columns to show first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from demo.profiling.columns import Column, NumberColumn, columns_for
from demo.profiling.grid import Grid
from demo.profiling.numerals import Style
from demo.profiling.table import Batch, Table

TOLD = 3  # problems of one row, or names of columns; the others are only counted
MAX_HASHES = 250_000  # of rows: 25 MB
FIRST_PICTURE = 1_000  # rows; a smaller file is done before anyone could look at a picture
MORE_FOR_PICTURE = 1.5  # times as many rows make the next picture: 20 pictures of a million rows
SCALES = ("number", "date")  # kinds of columns
PICTURE_SCALES = 3  # columns of a picture
PICTURE_OTHERS = 1
MOSTLY_DIFFERENT = 0.9  # of the values: names, numbers of rows

STYLES = {
    Style.COMMA: "Decimal commas: “1.234,5” is read as 1234.5 in {}.",
    Style.THOUSANDS: "Commas between thousands: “1,234.5” is read as 1234.5 in {}.",
}


class Profile:
    """The profile of one table, built batch by batch."""

    def __init__(self, table: Table) -> None:
        self.columns = columns_for(table)
        self.grid = Grid.over(self.columns)
        self.rows = 0
        self.problems = 0
        self.duplicates = 0
        self.hashes: set[int] = set()  # of the rows so far: the rows themselves would be a second copy of the table
        self.next_picture = FIRST_PICTURE

    def notes(self) -> Iterator[str]:
        """Yield what the owner of the file should know of how its columns are read."""
        for style, words in STYLES.items():
            names = [
                column.name for column in self.columns if isinstance(column, NumberColumn) and column.style is style
            ]
            if names:
                yield words.format(told(names, " and "))

    def add(self, batch: Batch) -> list[tuple[int, str]]:
        """Add some rows; return the line of each that has problems, with a sentence about them."""
        problems = [*batch.broken, *self.left_out(batch)]
        rows, lines = batch.rows, batch.lines
        if problems:
            width = len(self.columns)
            kept = [(row, line) for row, line in zip(rows, lines, strict=True) if len(row) == width]
            rows, lines = [row for row, _ in kept], [line for _, line in kept]
        if rows:
            problems += self.add_rows(rows, lines)
        self.rows += len(batch)
        self.problems += len(problems)
        return sorted(problems)

    def left_out(self, batch: Batch) -> list[tuple[int, str]]:
        expected = len(self.columns)
        if set(map(len, batch.rows)) <= {expected}:
            return []
        return [
            (line, f"{count(len(row), 'field')} where the header has {expected}; the row was left out")
            for row, line in zip(batch.rows, batch.lines, strict=True)
            if len(row) != expected
        ]

    def add_rows(self, rows: Sequence[list[str]], lines: Sequence[int]) -> list[tuple[int, str]]:
        columns = list(zip(*rows, strict=True))
        found: dict[int, list[str]] = {}
        for column, cells in zip(self.columns, columns, strict=True):
            for index, problem in column.add(cells):
                found.setdefault(index, []).append(problem)
        if self.grid:
            self.grid.add(columns)
        self.count_duplicates(rows)
        return [(lines[index], told(problems, "; ")) for index, problems in found.items()]

    def count_duplicates(self, rows: Sequence[list[str]]) -> None:
        new = set(map(hash, map(tuple, rows)))
        self.duplicates += len(rows) - len(new) + len(new & self.hashes)
        if not self.is_full:
            self.hashes |= new

    @property
    def is_full(self) -> bool:
        """The rows that come are compared with those remembered, and not with all that came before."""
        return len(self.hashes) >= MAX_HASHES

    def summary(self) -> dict[str, Any]:
        columns = [column.summary() for column in self.columns]
        return {
            "rows": self.rows,
            "problems": self.problems,
            "duplicates": self.duplicates,
            "duplicates_is_bound": self.is_full,
            "columns": columns,
            "charts": {"highlights": highlights(columns), "places": self.grid.summary() if self.grid else None},
        }

    def picture(self) -> dict[str, Any] | None:
        """Return charts of some columns as they are so far, if enough rows were added since the last picture."""
        if self.rows < self.next_picture:
            return None
        self.next_picture = math.ceil(self.rows * MORE_FOR_PICTURE)
        columns = sorted((column for column in self.columns if column.count), key=is_different_in_each_row)
        scales = [column for column in columns if column.kind in SCALES]
        others = [column for column in columns if column.kind not in SCALES]
        return {
            "rows": self.rows,
            "columns": [
                {"name": column.name, "kind": column.kind, "total": column.count + column.missing + column.invalid}
                | column.chart()
                for column in [*scales[:PICTURE_SCALES], *others[:PICTURE_OTHERS]]
            ],
        }


def is_different_in_each_row(column: Column[Any]) -> bool:
    """Say whether a column has names or numbers of rows: no picture shows them. Measurements have fractions."""
    is_measured = isinstance(column, NumberColumn) and not column.integers
    return not is_measured and len(column.seen) > MOSTLY_DIFFERENT * min(column.count, column.max_distinct)


def count(amount: int, noun: str) -> str:
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def told(words: Sequence[str], separator: str) -> str:
    """Return the first few of some words or sentences, and how many more there are."""
    more = len(words) - TOLD
    return separator.join([*words[:TOLD], *([f"and {more} more"] if more > 0 else [])]).replace(" and and ", " and ")


def highlights(columns: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the columns with the most useful charts: one with repeated values, and one with a scale."""
    return [column["name"] for column in (most_repeated(columns), first_scale(columns)) if column]


def most_repeated(columns: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the column whose top values cover the largest share of the rows; it must have more than one value."""
    repeated = [column for column in columns if len(column.get("top", ())) > 1 and column["distinct"] < column["count"]]
    return max(repeated, key=top_share, default=None)


def top_share(column: dict[str, Any]) -> float:
    covered: int = sum(count for _, count in column["top"])
    rows: int = column["count"] + column["missing"] + column["invalid"]
    return covered / rows


def first_scale(columns: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first column of numbers (or else dates) with repeated values: row numbers would be a flat line."""
    for kind in ("number", "date"):
        for column in columns:
            if column["kind"] == kind and column["distinct"] < column["count"] and not column["distinct_is_bound"]:
                return column
    return next((column for column in columns if "histogram" in column), None)
