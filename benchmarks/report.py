"""The figures as Markdown: the table, the set-up of each stack, and the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from statistics import median

from benchmarks import before, machine
from benchmarks.environments import python_of, versions
from benchmarks.figures import FIGURES, Figure, Rounds, shown
from benchmarks.session import Results
from benchmarks.stacks import OURS, Stack

NONE = "\N{EN DASH}"


def compared(stacks: list[Stack], results: Results, rounds: int) -> list[str]:
    """The lines of a page on ours and its peers."""
    return [
        f"Rounds: {rounds}; the stacks take turns in each. A figure is the median of the rounds, a share of what "
        "arrives is the least of them. Each stack is whole: daphne, one worker, a Valkey, the database, with "
        "Django's defaults for connections. The client is another process on the same machine: a ratio between "
        "two columns says more than a figure alone. What is wanted is meant for SQLite.",
        "",
        *table(stacks, results),
        "",
        *([*before.told(results), ""] if before.NAME in results else []),
        "## How each is set up",
        "",
        *(f"- **{stack.title}**: {stack.configured} {versions_of(stack)}." for stack in stacks),
    ]


def grown(rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a page on ours under growing load."""
    return [
        "Ours alone, each line measured once on its own servers: daphne, one worker process if no other number is "
        f"given, a Valkey, the database. {versions_of(OURS)}.",
        "",
        *markdown_table([["", "measured", "wanted"], *rows]),
    ]


def page(title: str, command: str, lines: list[str]) -> str:
    """A page of results, with its date, command and machine."""
    heading = f"# {title}, {datetime.now(UTC):%Y-%m-%d}"
    ran = f"`{command}` on {machine.described()}."
    return "\n".join([heading, "", ran, "", *lines, ""])


def table(stacks: list[Stack], results: Results) -> list[str]:
    beside = any(stack.name == before.NAME for stack in stacks)
    rows = [["", *(stack.title for stack in stacks), *["here / before"] * beside, "here, wanted"]]
    for figure in FIGURES:
        values = [figure.value(rounds_of(results, stack, figure)) for stack in stacks]
        if any(value is not None for value in values):
            cells = [NONE if value is None else f"{shown(value)} {figure.unit}" for value in values]
            rows.append([figure.title, *cells, *[_changed(figure, results)] * beside, figure.bound])
    return markdown_table(rows)


def _changed(figure: Figure, results: Results) -> str:
    found = before.ratios(figure, results)
    if not found:
        return NONE
    ratio = f"{median(found):.2f}"
    return f"**{ratio}**" if before.is_worse(figure, results) else ratio


def rounds_of(results: Results, stack: Stack, figure: Figure) -> Rounds:
    return results.get(stack.name, {}).get(figure.measure, [])


def markdown_table(rows: list[Iterable[str]]) -> list[str]:
    """The rows as lines of Markdown; the first one is the heading."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in rows)
    return [head, "|" + " --- |" * len(list(rows[0])), *body]


def versions_of(stack: Stack) -> str:
    """The packages of the stack, with the versions of its environment."""
    python = python_of(stack.environment) if stack.environment else sys.executable
    return ", ".join(f"{name} {number}" for name, number in versions(python, stack.packages).items())
