"""What tasks do on every stack: wait for a gate, report at a steady pace, call or compute in a loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

WAIT = 0.01  # seconds between two looks at the gate


def opened(gate: str) -> float:
    """Wait for the gate, and return the moment at which the client opened it."""
    path = Path(gate)
    while not path.exists():
        time.sleep(WAIT)
    return float(path.read_text())


def ticks(seconds: float, rate: int) -> Iterator[int]:
    """The numbers from 1, so many a second; after a delay no faster than that."""
    begun = time.monotonic()
    for number in range(1, int(seconds * rate) + 1):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        yield number


def since(moment: float) -> int:
    """Microseconds since that moment."""
    return round((time.time() - moment) * 1e6)


def seconds_for(calls: int, call: object) -> float:
    """The seconds of a loop that calls `call(n)` for each n from 1 to `calls`."""
    begun = time.perf_counter()
    for number in range(1, calls + 1):
        call(number)
    return time.perf_counter() - begun


def compute(seconds: float) -> int:
    """Keep the interpreter busy for so many seconds; return how often the loop ran."""
    until = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < until:
        rounds += 1
    return rounds
