"""Write what `make soak FAULT_REPORT=FILE` has found to benchmarks/results/: `python -m benchmarks.soak FILE`."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.stacks import OURS

RESULTS = Path(__file__).parent / "results"

# Longer names for figures of the storm (tests/faults/account.py), for readers of the table.
TITLES = {
    "layer": "channel layer",
    "servers": "server processes",
    "runs of kinds": "of these, of kinds that can be left out",
    "runs deleted in their time": "runs that were kept for a moment and then deleted",
    "statuses": "how the runs ended",
    "executions": "executions of their tasks",
    "executions of isolated tasks": "of these, of isolated tasks",
    "executions in processes of their own": "of all, in processes of their own (also the next attempt of a lost run)",
    "taken up": "executions that were lost and taken up",
    "longest takeover": "longest takeover, in seconds",
    "longest takeover amid other faults": "longest takeover amid other faults, in seconds",
    "followers": "subscribers over WebSocket",
    "connections": "connections that they took",
    "events": "events that they got",
    "events dropped": "events that the channel layer dropped",
    "refusals": "refusals that they got",
    "parts fetched by REST": "parts too large for a frame, which they fetched by REST",
    "logouts": "how subscribers were sent away after a logout",
    "promises of pages": "promises of the JavaScript client, in Chromium",
    "promises of pages settled": "of these, settled",
    "starts of pages refused": "of these, refused before the run was accepted",
    "answers of strangers": "answers of strangers on the road to the server",
    "pollers": "subscribers over REST",
    "lost": "runs lost",
    "stuck": "runs stuck",
    "broken": "promises broken",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("report", type=Path, help="the file that FAULT_REPORT named: a line of JSON for each storm")
    storms = [json.loads(line) for line in parser.parse_args().report.read_text().splitlines() if line.strip()]
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-soak.md"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(rendered(storms))
    print(f"Written to {path.name}.")


def rendered(storms: list[dict[str, Any]]) -> str:
    """A table with a column for each storm; its lines keep the order of the figures."""
    keys = dict.fromkeys(key for storm in storms for key in storm)
    rows = [
        ["", *(f"storm {number}" for number, _ in enumerate(storms, 1))],
        *([TITLES.get(key, key), *(_cell(storm.get(key)) for storm in storms)] for key in keys),
    ]
    lines = [
        "Real Valkey, PostgreSQL, daphne and worker processes, struck at random while clients start runs and follow "
        "them; then every promise of docs/guarantees.md is checked on each run and each subscriber. A storm with a "
        f"broken promise fails. `make soak FAULT_SEED=` repeats the storm with that seed. {report.versions_of(OURS)}.",
        "",
        *report.markdown_table(rows),
    ]
    return report.page("Under faults", "make soak", lines)


def _cell(value: Any) -> str:
    match value:
        case None:
            return report.NONE
        case dict():
            counts = sorted(value.items(), key=lambda item: -item[1])
            return "; ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts) or "none"
        case _:
            return str(value)


if __name__ == "__main__":
    main()
