"""The demo's profile of a CSV file: what is read, what is refused, what is said of each column."""

import csv
import gzip
import io
import json
import tracemalloc

import pytest

from demo import profiling
from demo.profiling import Profile
from demo.profiling.columns import MAX_DISTINCT, fold
from demo.profiling.encoding import CHUNK, MAX_LINE
from demo.profiling.histograms import MAX_BINS, round_step
from demo.profiling.numerals import Style, style_of
from demo.profiling.profile import FIRST_PICTURE
from demo.profiling.table import BATCH_CHARACTERS, BATCH_ROWS, MAX_COLUMNS


def read(text, encoding="utf-8"):
    return profiling.read(io.BytesIO(text.encode(encoding)))


def profile(*lines, encoding="utf-8"):
    """The summary of a file of those lines, and what was said of its rows, by line."""
    table = read("\n".join(lines), encoding)
    profile = Profile(table)
    said = dict(problem for batch in table.batches() for problem in profile.add(batch))
    return profile.summary(), said


def column(name, *values):
    """The summary of a column of those values, beside a column that makes each row differ."""
    summary, said = profile(f"row,{name}", *(f"{index},{value}" for index, value in enumerate(values)))
    return summary["columns"][1], said


# Reading


def test_rows_know_the_line_on_which_they_begin():
    table = read('a,b\n1,"two\nlines"\n\n2,x\n')
    assert table.header == ["a", "b"]
    [batch] = table.batches()
    assert (batch.lines, batch.rows) == ([2, 5], [["1", "two\nlines"], ["2", "x"]])
    assert (batch.end, table.lines) == (5, 5)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n2,5;3\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("one column\n1\n", ","),
    ],
)
def test_the_delimiter_is_the_one_that_cuts_all_lines_alike(text, delimiter):
    assert read(text).delimiter == delimiter


def test_a_byte_order_mark_is_no_part_of_a_name():
    assert read("\ufeffa,b\n1,2\n").header == ["a", "b"]


def test_every_column_has_a_name_of_its_own():
    assert read("a,,a\n1,2,3\n").header == ["a", "column 2", "a (2)"]


@pytest.mark.parametrize("text", ["\n\n", "\ufeff", '"a,b\n1,2\n'])
def test_a_file_without_a_header_is_refused(text):
    with pytest.raises(ValueError, match="no header row"):
        read(text)


def test_a_file_of_too_many_columns_is_refused():
    with pytest.raises(ValueError, match=f"101 columns; the demo takes up to {MAX_COLUMNS}"):
        read(",".join("a" * 101) + "\n")


def test_a_file_of_a_header_alone_has_a_profile():
    summary, said = profile("a,b")
    assert (summary["rows"], said) == (0, {})
    assert [column["count"] for column in summary["columns"]] == [0, 0]
    assert summary["charts"] == {"highlights": [], "places": None}


# Rows that do not parse


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("1", "1 field where the header has 2; the row was left out"),
        ("1,2,3", "3 fields where the header has 2; the row was left out"),
        ('1,"2"x', "a field goes on after its closing quote; the row was left out"),
        ("one,2", "a: a number was expected, “one” came"),
        ("007,2", "a: a number was expected, “007” came"),
        ("1,S\ufffdo", "b: “S\ufffdo” holds bytes that are not UTF-8"),
        ("one,S\ufffdo", "a: a number was expected, “one” came; b: “S\ufffdo” holds bytes that are not UTF-8"),
    ],
)
def test_a_row_that_does_not_parse_is_told_with_its_line(row, sentence):
    summary, said = profile("a,b", "1,x", "2,y", "3,x", row, "4,y", "5,x")
    assert said == {5: sentence}
    assert (summary["rows"], summary["problems"]) == (6, 1)


def test_a_quote_that_is_never_closed_ends_the_file():
    summary, said = profile("a,b", "1,x", '2,"y', "3,x")
    assert said == {3: "a quote is opened here and never closed, so nothing after it could be read"}
    assert summary["columns"][0]["count"] == 1


def test_of_a_row_with_many_problems_the_first_are_told():
    good = ["1,1,1,1,1"] * 9
    _, said = profile("a,b,c,d,e", *good, "x,x,x,x,x")
    assert said[11].count("a number was expected") == 3
    assert said[11].endswith("; and 2 more")


def test_a_long_value_is_told_in_part():
    _, said = profile("a", "1", "2", "3", "x" * 1000)
    assert len(said[5]) < 120


# What a column holds


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2.5", "+.5", "1e3", ""], "number"),
        (["1", "2", "3", "x"], "number"),
        (["1", "2", "x"], "text"),
        (["01", "02", "03"], "text"),
        (["nan", "inf", "1e999"], "text"),
        (["1_000", "2_000"], "text"),
        (["2024-02-29", "2023-12-31 23:59", "2024-01-01T00:00:00Z"], "date"),
        (["2023-02-29", "2023-13-01"], "text"),
        (["yes", "No", "TRUE", "false"], "boolean"),
        (["", ""], "text"),
    ],
)
def test_a_column_is_what_most_of_its_values_are(values, kind):
    assert column("a", *values)[0]["kind"] == kind


def test_a_column_is_known_by_rows_of_the_whole_file():
    numbers = ["x"] * 100 + ["1"] * 1900  # the first values are not like the others
    assert column("a", *numbers)[0]["kind"] == "number"


def test_numbers_are_described():
    summary, _ = column("a", "1", "2", "3", "4", "", "5")
    assert summary | {"histogram": ...} == {
        "name": "a",
        "kind": "number",
        "count": 5,
        "missing": 1,
        "invalid": 0,
        "distinct": 5,
        "distinct_is_bound": False,
        "integers": True,
        "min": 1,
        "max": 5,
        "mean": 3,
        "quartiles": [2, 3, 4],
        "histogram": ...,
        "estimated_from": None,
    }


def test_text_is_described():
    summary, _ = column("a", "KLM1", "ABC2", "KLM1", "klm1", "x")
    assert summary["top"] == [["KLM1", 2], ["ABC2", 1], ["klm1", 1], ["x", 1]]
    assert summary["lengths"] == [1, 4]
    assert summary["shapes"] == [["AAA9", 3], ["aaa9", 1], ["a", 1]]
    assert (summary["variants"], summary["variant_count"]) == ([["KLM1", "klm1"]], 1)


def test_spellings_of_one_value_fold_to_the_same():
    assert fold("São  Paulo") == fold("sao paulo ") != fold("sao paolo")


def test_a_shape_keeps_what_is_no_letter_or_digit():
    assert column("a", "KLAX-07 é")[0]["shapes"] == [["AAAA-99 é", 1]]


def test_the_memory_for_distinct_values_is_bound(monkeypatch):
    monkeypatch.setattr("demo.profiling.columns.MAX_DISTINCT", 3)
    summary, _ = column("a", *"abcdea")
    assert (summary["distinct"], summary["distinct_is_bound"]) == (3, True)
    assert summary["top"] == [["a", 2], ["b", 1], ["c", 1]]


def test_rows_that_stand_there_twice_are_counted():
    assert profile("a,b", "1,x", "2,x", "1,x", "1,x")[0]["duplicates"] == 2


# Histograms


@pytest.mark.parametrize(
    "values",
    [
        ["1"],
        ["5", "5"],
        ["0", "-0.0"],
        ["1e100", "-1e100"],
        ["1e-320", "2e-320"],
        ["9007199254740993", "9007199254740994"],
        [str(n * 0.1) for n in range(200)],
        [str(n) for n in range(5000)],
    ],
)
def test_a_histogram_holds_every_number_in_few_bars(values):
    summary, said = column("a", *values)
    bins = summary["histogram"]
    assert said == {}
    assert sum(bin_["count"] for bin_ in bins) == len(values)
    assert len(bins) <= MAX_BINS + 2
    json.dumps(summary, allow_nan=False)


def test_a_number_on_an_edge_lies_in_the_bar_that_begins_there():
    bins = column("a", *["0.3", "0.6", "0.7", "1.2"] * 20)[0]["histogram"]
    assert [bin_["from"] for bin_ in bins if bin_["count"]] == [0.3, 0.6, 0.7, 1.2]


def test_whole_numbers_have_bars_of_whole_numbers():
    bins = column("a", *["1", "2", "2", "3"])[0]["histogram"]
    assert bins == [
        {"from": 1, "to": 2, "count": 1},
        {"from": 2, "to": 3, "count": 2},
        {"from": 3, "to": 4, "count": 1},
    ]


@pytest.mark.parametrize(
    ("width", "step"), [(0, 1), (0.7, 1), (1.01, 2), (2.1, 2.5), (3, 5), (416, 500), (999, 1000), (0.03, 0.05)]
)
def test_a_step_is_round(width, step):
    assert round_step(width) == pytest.approx(step)


@pytest.mark.parametrize(
    ("dates", "labels"),
    [
        (["2024-02-28", "2024-03-01"], ["2024-02-28", "2024-02-29", "2024-03-01"]),
        (["2024-01-01", "2024-01-09"], ["week of 2024-01-01", "week of 2024-01-08"]),
        (["2024-01-01", "2024-03-01"], ["2024-01", "2024-02", "2024-03"]),
        (["2022-01-01", "2024-03-01"], ["2022", "2023", "2024"]),
        (["1999-01-01", "2024-03-01"], ["1990s", "2000s", "2010s", "2020s"]),
    ],
)
def test_dates_have_bars_of_the_calendar(dates, labels):
    bins = column("a", *dates)[0]["histogram"]
    assert [bin_["from"] for bin_ in bins] == labels


# Which charts


def test_what_repeats_and_what_is_a_scale_are_shown_first():
    rows = [f"{n},code{n},2024-01-0{n % 9 + 1},kind {n % 3},{n % 7}.5" for n in range(1, 40)]
    summary, _ = profile("id,code,day,kind,weight", *rows)
    assert summary["charts"]["highlights"] == ["kind", "weight"]


def test_a_table_of_nothing_that_repeats_shows_the_scale_that_it_has():
    summary, _ = profile("id,code", *(f"{n},code{n}" for n in range(9)))
    assert summary["charts"]["highlights"] == ["id"]


def test_places_are_counted_where_a_table_has_them():
    summary, _ = profile("lat,lon", "90,-180", "-90,180", "0,0", "0.1,0.1", "91,0", ",")
    assert summary["charts"]["places"] == {"degrees": 2.5, "cells": [[0, 0, 1], [72, 35, 1], [72, 36, 1], [143, 71, 1]]}


def test_names_alone_make_no_places():
    assert profile("lat,lon", "north,west")[0]["charts"]["places"] is None


def test_numbers_are_those_of_csv_files_and_not_of_python():
    cells = ("1.", ".5", "-0", "1e2", "1_0", "٣", "0x1", " 1", "")
    expected = [1, 0.5, 0, 100, *[None] * 5]
    assert Style.POINT.to_numbers(cells) == expected
    assert [Style.POINT.to_number(cell) for cell in cells] == expected


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize(
    "cell",
    [
        "1",
        "-2",
        "+3",
        "0",
        "-0.5",
        "0,5",
        "1.5",
        "1,5",
        "007",
        "-07",
        "1.2.3",
        "1-2",
        "-",
        ".",
        "2024-12-31",
        "9" * 101,
    ],
)
def test_the_fast_way_reads_the_numbers_that_the_careful_way_reads(style, cell):
    assert style.to_numbers([cell, "1"]) == [style.to_number(cell), 1]


# Decimal commas


def test_decimal_commas_are_numbers():
    summary, said = profile("name;price", "a;1,5", "b;1.234,5", "c;2", "d;-0,25", "e;1.000")
    price = summary["columns"][1]
    assert (price["kind"], price["min"], price["max"], said) == ("number", -0.25, 1234.5, {})
    assert price["mean"] == pytest.approx((1.5 + 1234.5 + 2 - 0.25 + 1000) / 5)


def test_decimal_commas_are_told():
    profile = Profile(read("a;b;c\n1,5;2.5;x\n1.234,5;3.5;y\n"))
    assert list(profile.notes()) == ["Decimal commas: “1.234,5” is read as 1234.5 in a."]


@pytest.mark.parametrize(
    ("cells", "delimiter", "style"),
    [
        (["1.5", "2"], ";", Style.POINT),
        (["1,5", "1.234"], ";", Style.COMMA),
        (["1,5", "2"], ",", Style.COMMA),
        (["1.234", "2.345"], ";", Style.POINT),
        (["1,234", "2,345"], ",", Style.THOUSANDS),
        (["1,234", "2,345"], ";", Style.COMMA),
        (["1,234,567", "2,345"], ";", Style.THOUSANDS),
        (["0,123", "2,345"], ",", Style.COMMA),
    ],
)
def test_a_comma_means_what_the_whole_column_says(cells, delimiter, style):
    assert style_of(cells, delimiter) is style


def test_a_number_of_the_other_style_is_told():
    summary, said = profile("a;b", *["1,5;x"] * 9, "1.5;y")
    assert said == {11: "a: a number was expected, “1.5” came"}
    assert summary["columns"][0]["kind"] == "number"


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_letters_are_read_in_the_encoding_of_the_file(encoding):
    summary, said = profile("größe,ort", "1,Mühle", "2,Mühle", encoding=encoding)
    assert [column["name"] for column in summary["columns"]] == ["größe", "ort"]
    assert (summary["columns"][1]["top"], said) == ([["Mühle", 2]], {})


def test_latin_1_is_told():
    assert read("a,b\n1,Mühle\n").notes == []
    [note] = read("a,b\n1,Mühle\n", "latin-1").notes
    assert note.startswith("The file is not UTF-8, so it was read as Latin-1 (Windows-1252).")


def test_latin_1_is_recognised_if_its_first_letter_stands_at_the_end():
    table = profiling.read(io.BytesIO(b"a,b\n" + b"1,x\n" * CHUNK + b"2,M\xfchle\n"))
    *_, last = table.batches()
    assert last.rows[-1] == ["2", "Mühle"]
    assert len(table.notes) == 1


def test_a_character_may_be_cut_by_the_end_of_a_part():
    text = "ä" * (CHUNK - 3)  # after an odd number of bytes
    assert read(f"a\nx{text}\n").notes == []


def test_bad_bytes_in_a_file_of_utf_8_are_told_by_row():
    table = profiling.read(io.BytesIO("a,b\n1,São\n2,Mühle\n".encode() + b"3,M\xfchle\n"))
    profile = Profile(table)
    assert table.notes == []
    assert [problem for batch in table.batches() for problem in profile.add(batch)] == [
        (4, "b: “M\ufffdhle” holds bytes that are not UTF-8")
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "last"])
def test_lines_are_counted_as_they_are_read(line_break, end):
    rows = 3 * BATCH_ROWS
    table = read("a,b\n".replace("\n", line_break) + f"1,2{line_break}" * rows + (f"1,{end}" if end else ""))
    *_, last = table.batches()
    assert table.lines == last.end == rows + 1 + bool(end)


# What is no CSV file


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file is empty: it has 0 bytes."),
        (b"PK\x03\x04" + bytes(100), "it is a spreadsheet (.xlsx, .ods) or a ZIP archive. Save its table as CSV"),
        (gzip.compress(b"a,b\n1,2\n"), "it is compressed by gzip"),
        (b"%PDF-1.7\n%\xe2\xe3", "it is a PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it has bytes of value zero"),
        (bytes(range(1, 256)) * 9, "it is full of control characters"),
        (b"a,b\n" + b"1,2\n" * CHUNK + b"1,\0\n", "it has bytes of value zero"),
        (b"a,b\n" + b"x" * (MAX_LINE + CHUNK), f"Line 2 has more than {MAX_LINE:,} characters"),
        (b"\xff\xfea\0,\0\xd8\xd8", "The file begins as UTF-16 does"),
    ],
    ids=["empty", "xlsx", "gzip", "pdf", "png", "control", "zero", "long line", "utf-16"],
)
def test_what_is_no_csv_file_is_refused_with_a_sentence(content, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is looked at below
        profiling.read(io.BytesIO(content))
    assert sentence in str(error.value)


def test_a_quote_that_is_never_closed_in_a_large_file_takes_a_field_and_not_the_file():
    rows = csv.field_size_limit() // 4
    summary, said = profile("a,b", "1,x", '2,"y', *["3,z"] * 2 * rows)
    [(line, sentence)] = said.items()
    assert line == 3
    assert "perhaps its quote is never closed" in sentence
    assert summary["columns"][0]["count"] > rows / 2


# As a stream


class Stream(io.RawIOBase):
    """A file of that many rows, which are made when they are read."""

    def __init__(self, rows):
        self.rows = rows
        self.seek(0)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        assert (offset, whence) == (0, 0)
        self.next, self.rest = 0, b"id,name,weight\n"
        return 0

    def readinto(self, buffer):
        while len(self.rest) < len(buffer) and self.next < self.rows:
            ahead = range(self.next, min(self.rows, self.next + 5_000))
            self.rest += "".join(f"{n},a name that is new {n},{n / 7:.3f}\n" for n in ahead).encode()
            self.next = ahead.stop
        part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def peak_of(rows):
    """The largest memory, in bytes, that the profile of so many rows takes."""
    tracemalloc.start()
    try:
        table = profiling.read(Stream(rows))
        profile = Profile(table)
        for batch in table.batches():
            profile.add(batch)
        assert profile.summary()["rows"] == rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_three_times_the_rows_take_no_more_memory(monkeypatch):
    monkeypatch.setattr("demo.profiling.columns.MAX_DISTINCT", 2_000)
    monkeypatch.setattr("demo.profiling.columns.MAX_DRAWN", 2_000)
    monkeypatch.setattr("demo.profiling.profile.MAX_HASHES", 2_000)
    assert peak_of(120_000) < 1.2 * peak_of(40_000)


def test_long_rows_come_in_small_batches():
    row = f"{'x' * (BATCH_CHARACTERS // 10)},1\n"
    table = read("a,b\n" + row * 100)
    assert max(len(batch) for batch in table.batches()) <= 12


def test_many_different_numbers_are_estimated(monkeypatch):
    monkeypatch.setattr("demo.profiling.columns.MAX_DISTINCT", 1_000)
    monkeypatch.setattr("demo.profiling.columns.MAX_DRAWN", 2_000)
    summary, _ = column("a", *(n / 8 for n in range(40_000)))
    assert (summary["count"], summary["min"], summary["max"]) == (40_000, 0, 39_999 / 8)
    assert summary["mean"] == pytest.approx(39_999 / 16)
    assert summary["quartiles"] == pytest.approx([1250, 2500, 3750], rel=0.1)
    assert 1_000 <= summary["estimated_from"] <= 2_000
    assert sum(bar["count"] for bar in summary["histogram"]) == pytest.approx(40_000, rel=0.01)


def test_duplicates_of_rows_that_are_not_remembered_are_not_claimed(monkeypatch):
    monkeypatch.setattr("demo.profiling.profile.MAX_HASHES", 3)
    assert profile("a", *"123")[0]["duplicates_is_bound"] is True
    assert profile("a", *"12")[0]["duplicates_is_bound"] is False


def test_long_values_are_told_apart_without_being_kept():
    summary, _ = column("a", "x" * 5_000 + "1", "x" * 5_000 + "2", "x" * 5_000 + "2")
    assert (summary["distinct"], summary["lengths"]) == (2, [5_001, 5_001])
    assert len(summary["top"][0][0]) <= 60


def test_the_values_that_are_remembered_are_bounded_for_the_whole_table():
    narrow, wide = (Profile(read(",".join("a" * width))) for width in (2, 100))
    assert narrow.columns[0].max_distinct == MAX_DISTINCT
    assert wide.columns[0].max_distinct < MAX_DISTINCT / 10


# Pictures before the end


def pictures(rows):
    text = "id,name,weight,kind\n" + "".join(f"{n},name {n},{n % 97 / 10},{n % 3}x\n" for n in range(rows))
    table = read(text)
    profile = Profile(table)
    found = []
    for batch in table.batches():
        profile.add(batch)
        found.append(profile.picture())
    return [picture for picture in found if picture]


def test_a_small_file_has_no_picture_before_its_end():
    assert pictures(FIRST_PICTURE - 1) == []


def test_the_first_picture_shows_the_first_rows_and_the_next_ones_more():
    rows = [picture["rows"] for picture in pictures(30 * BATCH_ROWS)]
    assert rows[0] <= BATCH_ROWS
    assert rows == sorted(set(rows))
    assert 5 <= len(rows) <= 12


def test_a_picture_shows_what_spreads_before_what_is_different_in_each_row():
    picture = pictures(2 * BATCH_ROWS)[-1]
    weight, number, kind = picture["columns"]
    assert (weight["name"], number["name"], kind["name"]) == ("weight", "id", "kind")
    assert sum(bar["count"] for bar in weight["histogram"]) == picture["rows"]
    assert kind["total"] == picture["rows"]
    json.dumps(picture, allow_nan=False)
