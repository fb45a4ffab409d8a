"""The documentation as data: its pages, and the code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(file.relative_to(ROOT).as_posix() for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"^(?:#|<!--|\{#|/\*) ((?:\w+/)+\w+\.\w+)(?: -->| #\}| \*/)?\n", re.MULTILINE)


class Fence(NamedTuple):
    """One block of code."""

    page: str
    line: int  # of the page, on which the code begins
    language: str
    code: str

    @property
    def padded(self) -> str:
        """The code, moved to its line, so that a traceback shows the line of the page."""
        return "\n" * (self.line - 1) + self.code

    @property
    def files(self) -> dict[str, str]:
        """The files that it shows, with their text: each begins with a comment line that has the path."""
        _, *parts = FILE_NAME.split(self.code)
        return dict(zip(parts[::2], parts[1::2], strict=True))


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def fences(page: str, *languages: str) -> list[Fence]:
    """The page's blocks of code in these languages."""
    text = text_of(page)
    return [
        Fence(
            page,
            text.count("\n", 0, block.start()) + 2,
            block[2],
            re.sub(rf"^{block[1]}", "", block[3], flags=re.MULTILINE),
        )
        for block in FENCE.finditer(text)
        if block[2] in languages
    ]


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def pages_with(*languages: str) -> list[str]:
    return [page for page in PAGES if fences(page, *languages)]
