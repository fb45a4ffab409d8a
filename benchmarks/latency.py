"""How long a run takes: from the client's `run` frame to `finished`, and from enqueueing to its start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.support.socket import Socket, open_socket
from tests.support.stack import Stack

Row = tuple[str, str, str]

CALLS = 10_000  # of `inc_progress` in one task
WARM_UP = 30  # runs before anything is measured


async def measure(stack: Stack, runs: int, rounds: int) -> list[Row]:
    async with open_socket(stack.ws_url) as socket:
        await _sums(socket, WARM_UP)
        times = [await _sums(socket, runs) for _ in range(rounds)]
        pings = [await _pings(socket, runs) for _ in range(rounds)]
        paces = [await _pace(socket) for _ in range(rounds)]
    return [
        ("a `ping` answered, p50", _milliseconds(_median(pings, 0.5)), ""),
        ("`sum`: `run` to `finished`, p50", _milliseconds(_median(times, 0.5)), "8 ms"),
        ("`sum`: `run` to `finished`, p99", _milliseconds(_median(times, 0.99)), ""),
        (f"{CALLS:,} `inc_progress` in a task, the last value seen", _milliseconds(statistics.median(paces)), "20 ms"),
        ("enqueue to start, p50", _milliseconds(_enqueue_to_start(stack)), "2 ms"),
    ]


async def _sums(socket: Socket, runs: int) -> list[float]:
    """Seconds for each of `runs` runs, one after another."""
    times = []
    for number in range(runs):
        begun = time.perf_counter()
        await socket.send(type="run", ref=str(number), task="sum", inputs={"numbers": [1, 2, 3]})
        *_, finished = await socket.receive_until("finished")
        times.append(time.perf_counter() - begun)
        if finished["task"]["outputs"] != {"sum": 6}:
            raise RuntimeError(f"A sum went wrong: {finished}")
    return times


async def _pace(socket: Socket) -> float:
    """Seconds that a task spends in a loop of progress calls, while it is followed."""
    await socket.send(type="run", task="pace", inputs={"n": CALLS})
    *events, finished = await socket.receive_until("finished")
    last = [event["progress"] for event in events if event["type"] == "progress"][-1:]
    if last != [CALLS]:
        raise RuntimeError(f"The last progress is {last}, not {CALLS}.")
    seconds: float = finished["task"]["outputs"]["seconds"]
    return seconds


async def _pings(socket: Socket, pings: int) -> list[float]:
    times = []
    for _ in range(pings):
        begun = time.perf_counter()
        await socket.send(type="ping")
        await socket.receive_until("pong")
        times.append(time.perf_counter() - begun)
    return times


def _enqueue_to_start(stack: Stack) -> float:
    """Median seconds from the moment before a job is queued to the first line of its `run`, on one clock."""
    script = Path(__file__).with_name("enqueue.py")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=stack.environment, check=True, stdout=subprocess.PIPE, text=True)
    return statistics.median(json.loads(done.stdout))


def _median(rounds: list[list[float]], fraction: float) -> float:
    """The median of the rounds' quantiles."""
    return statistics.median(sorted(times)[int(fraction * (len(times) - 1))] for times in rounds)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
