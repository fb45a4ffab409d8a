"""What a progress call costs the task that makes it."""

from __future__ import annotations

import statistics
import time

from taskapi.progress import Speaker

CALLS = 100_000


def measure(rounds: int) -> list[tuple[str, str, str]]:
    seconds = statistics.median(_loop() for _ in range(rounds)) - statistics.median(_empty() for _ in range(rounds))
    return [("one `inc_progress` in a loop", f"{seconds / CALLS * 1e6:.2f} µs", "0.5 µs")]


def _loop() -> float:
    speaker = Speaker(None, None, wake=lambda: None)
    begun = time.perf_counter()
    for _ in range(CALLS):
        speaker.inc_progress()
    return time.perf_counter() - begun


def _empty() -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        pass
    return time.perf_counter() - begun
