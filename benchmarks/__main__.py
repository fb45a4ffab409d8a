"""Measure Django Task API beside its peers, on servers of its own, and print a table."""

from __future__ import annotations

import argparse
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import before, chart, growth, report, session
from benchmarks.growth import Growth
from benchmarks.session import Session
from benchmarks.stacks import OURS, PEERS, Stack
from tests.support.databases import KINDS, Databases

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = parsed(sys.argv[1:])
    # PostgreSQL's package warns that it puts sockets into /tmp, which is right here.
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
    databases = Databases()
    try:
        files = (grown if options.growth else compared)(options, databases)
    finally:
        databases.close()
    print(files[".md"])
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        name = f"{datetime.now(UTC):%Y-%m-%d}-{options.database}{'-growth' if options.growth else ''}"
        for suffix, text in files.items():
            (RESULTS / f"{name}{suffix}").write_text(text)
        print(f"Written to {name}.", file=sys.stderr)


def compared(options: argparse.Namespace, databases: Databases) -> dict[str, str]:
    """The results of ours beside its peers: the text of each file, by its suffix."""
    earlier = [before.stack_of(options.before)] if options.before else []
    stacks = [OURS, *earlier, *options.peers]
    sizes = session.QUICK if options.quick else session.FULL
    only = None if options.only is None else [options.only]
    measuring = Session(databases, options.database, sizes)
    results = measuring.measure(stacks, options.rounds, only)
    for stack in earlier:
        before.measure_again(measuring, stack, options.rounds, only)
    lines = report.compared(stacks, results, options.rounds)
    return {
        ".md": report.page(f"Beside its peers, on {options.database}", command(), quick(options) + lines),
        ".svg": chart.drawn(stacks, results),
    }


def grown(options: argparse.Namespace, databases: Databases) -> dict[str, str]:
    """The results of ours under growing load."""
    sizes = growth.QUICK if options.quick else growth.FULL
    rows = Growth(databases, options.database, sizes).measure(options.only)
    return {".md": report.page(f"Growth, on {options.database}", command(), quick(options) + report.grown(rows))}


def quick(options: argparse.Namespace) -> list[str]:
    """A warning to the reader of the quick form."""
    warning = "**The quick form**: much less of everything than the lines say. Its figures mean nothing."
    return [warning, ""] if options.quick else []


def command() -> str:
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--database", choices=KINDS, default=KINDS[0])
    parser.add_argument(
        "--peers",
        type=_peers,
        default="all",
        metavar="NAMES",
        help=f"all, none, or some, with commas: {', '.join(peer.name for peer in PEERS)} (default: %(default)s)",
    )
    parser.add_argument("--before", metavar="REV", help="also measure ours as it was in this revision, and compare")
    parser.add_argument("--growth", action="store_true", help="measure ours alone, under growing load")
    parser.add_argument(
        "--only",
        metavar="NAME",
        help=f"one measure: {', '.join(OURS.measures)}; with --growth: {', '.join(growth.PARTS)}",
    )
    parser.add_argument("--rounds", type=int, default=3, help="not with --growth (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it works")
    parser.add_argument("--save", action="store_true", help="write the table and a chart to benchmarks/results/")
    options = parser.parse_args(arguments)
    choices = growth.PARTS if options.growth else OURS.measures
    if options.only is not None and options.only not in choices:
        parser.error(f"--only takes one of {', '.join(choices)}, and not {options.only}")
    return options


def _peers(names: str) -> list[Stack]:
    if names in ("all", "none"):
        return list(PEERS) if names == "all" else []
    by_name = {peer.name: peer for peer in PEERS}
    try:
        return [by_name[name] for name in names.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"unknown peer {error}; expected some of: {', '.join(by_name)}") from None


if __name__ == "__main__":
    main()
