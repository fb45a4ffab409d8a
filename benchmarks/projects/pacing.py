"""What tasks do on every stack: wait for a gate, speak at a steady pace, call or compute in a loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

WAIT = 0.01  # seconds between two looks at the gate


def opened(gate: str) -> float:
    """Wait for the gate; the moment at which the client opened it."""
    path = Path(gate)
    while not path.exists():
        time.sleep(WAIT)
    return float(path.read_text())


def ticks(seconds: float, rate: int) -> Iterator[int]:
    """The numbers from 1, each at its moment, at that many a second; no faster after a delay."""
    begun = time.monotonic()
    for number in range(1, int(seconds * rate) + 1):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        yield number


def since(moment: float) -> int:
    """Microseconds since then."""
    return round((time.time() - moment) * 1e6)


def seconds_for(calls: int, call: object) -> float:
    """How long a loop takes that calls `call(n)` for each n from 1 to `calls`."""
    begun = time.perf_counter()
    for number in range(1, calls + 1):
        call(number)
    return time.perf_counter() - begun


def compute(seconds: float) -> int:
    """Keep the interpreter busy for so long; how often the loop went round."""
    until = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < until:
        rounds += 1
    return rounds
