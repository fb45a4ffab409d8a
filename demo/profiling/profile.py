"""Profiles one table, and chooses the columns to show first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demo.profiling.columns import columns_for
from demo.profiling.grid import Grid
from demo.profiling.table import Row, Table

TOLD_PROBLEMS = 3  # of one row; the others are only counted


class Profile:
    """The profile of one table, built row by row."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.columns = columns_for(table)
        self.grid = Grid.over(self.columns)
        self.problems = 0
        self.duplicates = 0
        self.hashes: set[int] = set()  # of the rows so far: the rows themselves would be a second copy of the table

    def add(self, row: Row) -> str | None:
        """Add one row; return a sentence about what is wrong with it, or None."""
        problem = row.problem or self.wrong_width(row) or self.add_cells(row)
        if problem:
            self.problems += 1
        return problem

    def wrong_width(self, row: Row) -> str | None:
        found, expected = len(row.cells), len(self.columns)
        if found == expected:
            return None
        return f"{found} {'field' if found == 1 else 'fields'} where the header has {expected}; the row was left out"

    def add_cells(self, row: Row) -> str | None:
        problems = [
            problem for column, cell in zip(self.columns, row.cells, strict=True) if (problem := column.add(cell))
        ]
        if self.grid:
            self.grid.add(row.cells)
        self.count_duplicate(row)
        return told(problems) if problems else None

    def count_duplicate(self, row: Row) -> None:
        before = len(self.hashes)
        self.hashes.add(hash(tuple(row.cells)))
        self.duplicates += len(self.hashes) == before

    def summary(self) -> dict[str, Any]:
        columns = [column.summary() for column in self.columns]
        return {
            "rows": len(self.table.rows),
            "problems": self.problems,
            "duplicates": self.duplicates,
            "columns": columns,
            "charts": {"highlights": highlights(columns), "places": self.grid.summary() if self.grid else None},
        }


def told(problems: Sequence[str]) -> str:
    """Return the first few problems of one row as a sentence, and how many more there are."""
    more = len(problems) - TOLD_PROBLEMS
    return "; ".join([*problems[:TOLD_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])


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
            if column["kind"] == kind and column["distinct"] < column["count"]:
                return column
    return next((column for column in columns if "histogram" in column), None)
