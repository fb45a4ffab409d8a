"""docs/guarantees.md names a test for each promise: it exists, and `make test` runs it or another one."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs" / "guarantees.md").read_text()


def _functions(path):
    """The tests of a module, and which of them only `make faults` runs."""
    nodes = ast.parse(path.read_text()).body
    tests = [node for node in nodes if getattr(node, "name", "").startswith("test_")]
    return {test.name: "pytest.mark.long" in map(ast.unparse, test.decorator_list) for test in tests}


TESTS = {path.name: _functions(path) for path in HERE.glob("test_*.py")}
LONG = {name: long for tests in TESTS.values() for name, long in tests.items()}
ELSEWHERE = re.compile(r"tests/([\w/]+\.py)::(test_\w+)")


def test_each_promise_names_tests_where_they_are():
    here = ELSEWHERE.sub("", PAGE)
    assert (named := set(re.findall(r"\btest_\w+\b(?!\.py)", here)))
    assert named - set(LONG) == set()
    places = re.findall(r"(?<!/)(test_\w+\.py)::(test_\w+)", here)
    assert [(module, name) for module, name in places if name not in TESTS[module]] == []


def test_each_promise_names_tests_of_other_folders_that_are_there_and_that_make_test_runs():
    places = ELSEWHERE.findall(PAGE)
    assert [(path, name) for path, name in places if _functions(HERE.parent / path).get(name) is not False] == []


def test_no_promise_waits_for_make_faults_to_be_tested():
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not ELSEWHERE.search(line)]
    named = [set(re.findall(r"\btest_\w+\b(?!\.py)", line)) for line in rows]
    assert [row for row in named if row and all(LONG.get(name) for name in row)] == []
