"""Numbers as CSV files write them: 1234.5, or with a decimal comma 1.234,5, or with grouped thousands 1,234.5."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence

LARGEST_NUMBER = 1e100  # in a column of numbers: sums stay finite, and no real measurement is larger

PLAIN = re.compile(r"[\d.+\-\n]*", re.ASCII)  # cells with these characters alone: `float` reads no more than we do
LEADING_ZERO = re.compile(r"\n[+-]?0\d", re.ASCII)  # 007 is a code
LONGEST_PLAIN = 90  # characters: no such number is larger than LARGEST_NUMBER


class Style(enum.Enum):
    """How the numbers of a column are written."""

    POINT = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)  # not 007: that is a code
    COMMA = re.compile(r"[+-]?(?:(?:0|[1-9]\d{0,2}(?:\.\d{3})+|[1-9]\d*)(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?", re.ASCII)
    THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|[+-]?(?:0|[1-9]\d*)(?:\.\d*)?", re.ASCII)

    def to_number(self, cell: str) -> float | None:
        """Return the number that a cell is, or None."""
        if not self.value.fullmatch(cell):
            return None
        number = float(self.to_point(cell))
        return number if abs(number) <= LARGEST_NUMBER else None

    def to_point(self, text: str) -> str:
        """Write numbers of this style with a decimal point."""
        if self is Style.COMMA:
            return text.replace(".", "").replace(",", ".")
        return text.replace(",", "") if self is Style.THOUSANDS else text

    def to_numbers(self, cells: Sequence[str]) -> list[float | None]:
        """Return the number in each cell, or None."""
        text = "\n" + "\n".join(cells)
        if self is Style.COMMA:
            text = text.replace(",", ".") if "." not in text else ""  # with a point, it takes a closer look
        if (
            text
            and PLAIN.fullmatch(text)
            and not LEADING_ZERO.search(text)
            and max(map(len, cells), default=0) < LONGEST_PLAIN
        ):
            try:
                return list(map(float, text.split("\n")[1:]))
            except ValueError:
                pass  # one of them is no number, such as "-" or "2024-12-31"
        return list(map(self.to_number, cells))


def style_of(cells: Iterable[str], delimiter: str) -> Style:
    """Return the style in which most of these cells are numbers.

    "1,234" may be 1.234 or 1234, and nothing in it says which. If no other cell says it, the delimiter does: who
    writes decimal commas, separates fields by something else.
    """
    votes: Counter[Style] = Counter()
    for cell in cells:
        votes.update(style for style in Style if style.value.fullmatch(cell))
    order = (
        [Style.POINT, Style.THOUSANDS, Style.COMMA] if delimiter == "," else [Style.POINT, Style.COMMA, Style.THOUSANDS]
    )
    return max(order, key=lambda style: votes[style])
