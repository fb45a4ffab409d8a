"""Splits a CSV text into rows: finds the delimiter, the names of the columns, and the line of each record."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

DELIMITERS = ",;\t|"
SNIFFED_LINES = 20  # a header and some rows; more would only cost time
MAX_COLUMNS = 100  # so that a summary stays within one message
MAX_VALUE_LENGTH = 60  # characters of a cell that a sentence or a summary shows


@dataclass(frozen=True, slots=True)
class Row:
    """One record: its first line, and its cells or the problem that prevented reading it."""

    line: int
    cells: list[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    header: list[str]
    rows: list[Row]
    delimiter: str


def read(text: str) -> Table:
    """Split a CSV text; its first record is the header. Raises ValueError if there is no header, or it is too wide."""
    text = text.removeprefix("\ufeff")
    delimiter = sniff_delimiter(text)
    records = split(text, delimiter)
    first = next(records, None)
    if first is None or first.problem:
        raise ValueError("The file has no header row: its first line must name the columns.")
    if len(first.cells) > MAX_COLUMNS:
        raise ValueError(f"The file has {len(first.cells):,} columns; the demo takes up to {MAX_COLUMNS}.")
    return Table(unique_names(first.cells), list(records), delimiter)


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that splits the first lines most evenly into several fields; a comma if none does."""
    head = "".join(islice(io.StringIO(text), SNIFFED_LINES))
    scores = {}
    for delimiter in DELIMITERS:
        widths = Counter(len(row.cells) for row in split(head, delimiter) if not row.problem)
        width, agreeing = max(widths.items(), key=lambda item: item[1], default=(1, 0))
        scores[delimiter] = (agreeing / max(1, widths.total()) if width > 1 else 0, width)
    return max(DELIMITERS, key=lambda delimiter: scores[delimiter])


def split(text: str, delimiter: str) -> Iterator[Row]:
    """Yield the records of a text; skip empty lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, [], quoting_problem(error))
            continue
        if cells:
            yield Row(line, cells)


def quoting_problem(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened here and never closed, so nothing after it could be read"
    if "expected after" in str(error):
        return "a field goes on after its closing quote; the row was left out"
    return f"{error}; the row was left out"


def unique_names(cells: Sequence[str]) -> list[str]:
    """Return a name for each column: a blank becomes "column 3", a second "name" becomes "name (2)"."""
    seen: Counter[str] = Counter()
    names = []
    for number, cell in enumerate(cells, start=1):
        name = shorten(cell.strip()) or f"column {number}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def shorten(value: str) -> str:
    return value if len(value) <= MAX_VALUE_LENGTH else value[: MAX_VALUE_LENGTH - 1] + "…"
