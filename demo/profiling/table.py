"""Splits a CSV file into rows: finds the delimiter, the names of the columns, and the line of each record.

A file is read as a stream, in batches of rows. At no time is more of it in memory than one batch.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO, TextIO

from demo.profiling.encoding import HEAD, Survey, survey

DELIMITERS = ",;\t|"
SNIFFED_LINES = 20  # a header and some rows; more would only cost time
MAX_COLUMNS = 100  # so that a summary stays within one message
MAX_VALUE_LENGTH = 60  # characters of a cell that a sentence or a summary shows
BATCH_ROWS = 2_000  # some 20 ms of work, so that a run that is cancelled ends at once
BATCH_CELLS = 40_000  # wide rows come in smaller batches
BATCH_CHARACTERS = 2**18  # and so do long ones


@dataclass(slots=True)
class Batch:
    """Some rows that follow one another."""

    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # for each row, the line on which it begins
    broken: list[tuple[int, str]] = field(default_factory=list)  # line and problem of each record that cannot be split

    def __len__(self) -> int:
        return len(self.rows) + len(self.broken)

    @property
    def end(self) -> int:
        """The line on which its last row begins."""
        return max(self.lines[-1:] + [line for line, _ in self.broken[-1:]])


@dataclass(slots=True)
class Lines:
    """The lines of a text, which it reads in parts of some BATCH_CHARACTERS."""

    text: TextIO
    parts: int = 0  # that were read so far

    def __iter__(self) -> Iterator[str]:
        while lines := self.text.readlines(BATCH_CHARACTERS):
            self.parts += 1
            yield from lines


@dataclass(slots=True)
class Table:
    """The header of a file, and its rows, which can be read once."""

    header: list[str]
    delimiter: str
    lines: int  # of the file
    notes: list[str]  # sentences for the person whose file it is
    sample: list[list[str]]  # rows from all over the file
    records: Iterator[tuple[int, list[str], str]]  # first line, cells, problem
    source: Lines

    def batches(self) -> Iterator[Batch]:
        """Yield the rows that are still to come."""
        size = min(BATCH_ROWS, max(1, BATCH_CELLS // len(self.header)))
        while batch := self.next_batch(size):
            yield batch

    def next_batch(self, size: int) -> Batch:
        batch, parts = Batch(), self.source.parts
        for line, cells, problem in self.records:
            if problem:
                batch.broken.append((line, problem))
            else:
                batch.rows.append(cells)
                batch.lines.append(line)
            if len(batch.rows) >= size or len(batch.broken) >= size or self.source.parts != parts:
                break
        return batch


def read(file: BinaryIO) -> Table:
    """Open a CSV file; its first record is the header. Raises ValueError, with a sentence, if it cannot be read."""
    found = survey(file)
    file.seek(0)
    text = io.TextIOWrapper(file, found.encoding, errors=found.errors, newline="")
    delimiter = sniff_delimiter(found.head)
    source = Lines(text)
    records = split(source, delimiter)
    _, header, problem = next(records, (0, [], ""))
    if problem or not header:
        raise ValueError("The file has no header row: its first line must name the columns.")
    if len(header) > MAX_COLUMNS:
        raise ValueError(f"The file has {len(header):,} columns; the demo takes up to {MAX_COLUMNS}.")
    sample = sample_rows(found, delimiter, len(header))
    return Table(unique_names(header), delimiter, found.lines, found.notes, sample, records, source)


def sample_rows(found: Survey, delimiter: str, width: int) -> list[list[str]]:
    """Return rows of the file from its beginning and from all over it, as far as they have that many cells.

    Of a small file, these are all rows.
    """
    head = islice(split(io.StringIO(found.head), delimiter), 1, None if len(found.head) < HEAD else SNIFFED_LINES)
    lines = (record for line in found.sample for record in split([line], delimiter))
    return [
        cells
        for records in (head, lines if len(found.head) == HEAD else ())
        for _, cells, problem in records
        if not problem and len(cells) == width
    ]


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that splits the first lines most evenly into several fields; a comma if none does."""
    head = list(islice(io.StringIO(text), SNIFFED_LINES))
    scores = {}
    for delimiter in DELIMITERS:
        widths = Counter(len(cells) for _, cells, problem in split(head, delimiter) if not problem)
        width, agreeing = max(widths.items(), key=lambda item: item[1], default=(1, 0))
        scores[delimiter] = (agreeing / max(1, widths.total()) if width > 1 else 0, width)
    return max(DELIMITERS, key=lambda delimiter: scores[delimiter])


def split(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield each record as its first line, its cells, and the problem that prevented reading it; skip empty lines."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            for cells in reader:
                if cells:
                    yield line, cells, ""
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, [], quoting_problem(error)
            line = reader.line_num + 1
        else:
            return


def quoting_problem(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened here and never closed, so nothing after it could be read"
    if "field limit" in str(error):
        return f"a field goes on for more than {csv.field_size_limit():,} characters: perhaps its quote is never closed"
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
