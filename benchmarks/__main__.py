"""Measure Django Task API beside its peers, on servers that this starts for itself, and print a table."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.session import FULL, QUICK, Session
from benchmarks.stacks import OURS, PEERS, Stack
from tests.support.databases import KINDS, Databases

RESULTS = Path(__file__).parent / "results"
MEASURES = OURS.measures


def main() -> None:
    options = parsed(sys.argv[1:])
    stacks = [OURS, *options.peers]
    databases = Databases()
    try:
        session = Session(databases, options.database, QUICK if options.quick else FULL)
        results = session.measure(stacks, options.rounds, options.only)
    finally:
        databases.close()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    text = report.rendered(stacks, results, options.database, command, options.rounds)
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{options.database}.md"
        path.write_text(text)
        print(f"Written to {path.name}.", file=sys.stderr)


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
    parser.add_argument("--only", choices=MEASURES, metavar="NAME", help=f"one measure: {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a little of everything: does it work?")
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results/")
    return parser.parse_args(arguments)


def _peers(names: str) -> list[Stack]:
    if names in ("all", "none"):
        return list(PEERS) if names == "all" else []
    by_name = {peer.name: peer for peer in PEERS}
    try:
        return [by_name[name] for name in names.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"there is no peer {error}") from None


if __name__ == "__main__":
    main()
