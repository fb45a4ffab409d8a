"""The demo's profile of a CSV file: what is read, what is refused, what is said of each column."""

import json

import pytest

from demo.profiling import Profile, read
from demo.profiling.columns import fold, shape_of, to_number
from demo.profiling.histograms import MAX_BINS, round_step
from demo.profiling.table import MAX_COLUMNS


def profile(*lines):
    """The summary of a file of those lines, and what was said of its rows, by line."""
    table = read("\n".join(lines))
    profile = Profile(table)
    said = {row.line: problem for row in table.rows if (problem := profile.add(row))}
    return profile.summary(), said


def column(name, *values):
    """The summary of a column of those values, beside a column that makes each row differ."""
    summary, said = profile(f"row,{name}", *(f"{index},{value}" for index, value in enumerate(values)))
    return summary["columns"][1], said


# Reading


def test_rows_know_the_line_on_which_they_begin():
    table = read('a,b\n1,"two\nlines"\n\n2,x\n')
    assert table.header == ["a", "b"]
    assert [(row.line, row.cells) for row in table.rows] == [(2, ["1", "two\nlines"]), (5, ["2", "x"])]


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


@pytest.mark.parametrize("text", ["", "\n\n", '"a,b\n1,2\n'])
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
    assert shape_of("KLAX-07 é") == "AAAA-99 é"


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
    assert [to_number(text) for text in ("1.", ".5", "-0", "1e2", "1_0", "٣", "0x1", " 1", "")] == [
        1,
        0.5,
        0,
        100,
        *[None] * 5,
    ]
