"""What a storm has beside plain runs and faults; FAULT_KINDS can leave out each kind."""

import random
from typing import Any, NamedTuple

KINDS = {
    "protected": "expired runs that cannot be deleted, because a row of the project protects them",
    "transaction": "a view that cancels a run and commits seconds later; until then it holds the run's row",
    "threads": "async tasks that keep the event loop's threads, and Django's one, busy",
    "stranger": "a proxy that answers pollers in place of the server: with a page of HTML, or a 404 in plain text",
    "slow_reader": "followers that do not read for seconds",
    "large": "messages and outputs that no frame can hold",
    "logout": "followers that log out while their run goes on",
    "isolated": "runs in processes of their own",
    "pages": "tabs of a real Chromium, with the JavaScript client",
}
FAULT_OF = {"transaction": "hold_row", "stranger": "stranger"}  # kinds that are faults, with their methods


class Variant(NamedTuple):
    """A run of a kind: its task, and its own inputs."""

    kind: str
    task: str
    inputs: dict[str, Any]


def chosen(names: str) -> frozenset[str]:
    """The kinds of FAULT_KINDS: `all`, `none`, some (`large,logout`), or all but some (`-large,-logout`)."""
    if names in ("all", "none"):
        return frozenset(KINDS if names == "all" else ())
    kinds = [name.strip() for name in names.split(",")]
    unknown = {kind.removeprefix("-") for kind in kinds} - set(KINDS)
    assert not unknown, f"FAULT_KINDS names unknown kinds {sorted(unknown)}; expected some of: {', '.join(KINDS)}"
    if all(kind.startswith("-") for kind in kinds):
        return frozenset(KINDS) - {kind.removeprefix("-") for kind in kinds}
    return frozenset(kinds)


def variants(kinds: frozenset[str], draw: random.Random) -> list[Variant]:
    """One run of each kind that consists of runs, or two."""
    seconds = draw.uniform(0, 4)
    every = [
        Variant("isolated", "isolated_work", {"steps": 12, "seconds": seconds}),
        Variant("protected", "billed_work", {"steps": 6, "seconds": seconds / 4}),
        Variant("protected", "fleeting_work", {"steps": 3, "seconds": seconds / 8}),
        Variant("threads", "threaded_work", {"steps": 4, "seconds": seconds}),
        Variant("threads", "sensitive_work", {"steps": 2, "seconds": seconds / 4}),
        Variant("slow_reader", "talkative_work", {"steps": 90, "seconds": seconds, "filler": 25_000}),
        Variant("large", "large_work", {"steps": 3, "seconds": 0.5, "filler": 1_500_000, "blob": 3_000_000}),
        Variant("logout", "work", {"steps": 60, "seconds": 12}),
    ]
    return [variant for variant in every if variant.kind in kinds]
