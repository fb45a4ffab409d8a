"""Looks through a file before it is read: its encoding, its lines, and whether it is a text at all."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 2**18  # bytes that are looked at in one step
HEAD = 2**16  # characters of the beginning that are kept: names, delimiter, and whether this is a text
MAX_LINE = 2**20  # characters: a longer line is no row, and the memory has to hold each line
SAMPLED_LINES = 4_000  # at most, spread over the whole file
MAX_CONTROLS = 0.01  # of the head's characters: texts have hardly any, compressed data has one in nine

BAD_BYTE = "\ufffd"  # a decoder puts this in place of bytes that are not text
CONTROLS = re.compile(r"[\x01-\x08\x0e-\x1f]")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ARCHIVES = {  # first bytes: what such a file is
    b"PK\x03\x04": "a spreadsheet (.xlsx, .ods) or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old version of Excel (.xls)",
    b"\x1f\x8b": "compressed by gzip",
    b"%PDF": "a PDF",
}
LATIN_1 = (
    "The file is not UTF-8, so it was read as Latin-1 (Windows-1252). "
    "If letters look wrong, save it as UTF-8 and profile it again."
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look through a file has found."""

    encoding: str
    errors: str  # what the decoder does with bytes that are no text: "strict" or "replace"
    lines: int
    head: str  # the first characters
    sample: list[str]  # lines from all over the file
    notes: list[str]  # sentences for the person whose file it is


def survey(file: BinaryIO) -> Survey:
    """Look through a file. Raises ValueError, with a sentence for its owner, if it cannot be a CSV file."""
    start = file.read(4)
    if not start:
        raise ValueError("The file is empty: it has 0 bytes.")
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            raise ValueError(f"This is no CSV file: it is {kind}. Save its table as CSV, and profile that.")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
    try:
        return look(file, encoding)
    except UnicodeDecodeError as error:
        if encoding not in ("utf-8", "utf-8-sig"):
            raise ValueError(f"The file begins as {encoding.upper()} does, and goes on as something else.") from error
    if encoding == "utf-8-sig" or is_mostly_utf8(file):
        return look(file, encoding, errors="replace")
    return look(file, "cp1252", errors="replace", notes=[LATIN_1])  # five of its bytes have no meaning


def look(file: BinaryIO, encoding: str, *, errors: str = "strict", notes: list[str] | None = None) -> Survey:
    lines, head, open_line, step = 0, "", 0, 1
    sample: list[str] = []
    ends_line = True
    for text in texts(file, encoding, errors):
        if "\0" in text:
            raise ValueError(
                "This is no text file: it has bytes of value zero. Save its table as CSV, and profile that."
            )
        if not head:
            head = text[:HEAD]
            if len(CONTROLS.findall(head)) > MAX_CONTROLS * len(head):
                raise ValueError("This is no text file: it is full of control characters.")
        breaks = text.count("\n")
        open_line = open_line + text.index("\n") if breaks else open_line + len(text)
        if open_line > MAX_LINE:
            raise ValueError(
                f"Line {lines + 1:,} has more than {MAX_LINE:,} characters: a CSV file has a line for each row."
            )
        if breaks:
            open_line = len(text) - text.rindex("\n") - 1
            sample += text.split("\n")[1:-1:step]  # the first and the last may be parts of lines
        while len(sample) > SAMPLED_LINES:
            sample, step = sample[::2], step * 2
        lines += breaks
        ends_line = text.endswith("\n")
    return Survey(encoding, errors, lines + (not ends_line), head, sample, notes or [])


def texts(file: BinaryIO, encoding: str, errors: str) -> Iterator[str]:
    """Yield the text of a file in parts, from its beginning; with one character for each line break."""
    file.seek(0)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    while chunk := file.read(CHUNK):
        if text := decoder.decode(chunk):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def is_mostly_utf8(file: BinaryIO) -> bool:
    """Say whether a file that is not quite UTF-8 has more letters that are UTF-8 than bytes that are not."""
    good = bad = 0
    for text in texts(file, "utf-8", "replace"):
        if not text.isascii():
            replaced = text.count(BAD_BYTE)
            bad += replaced
            good += len(text) - len(text.encode("ascii", "ignore")) - replaced
    return good > bad
