"""The measures of the client. Times are in seconds, shares from 0 to 1; figures.py gives them units.

A wrong result is an error; a slow one is a figure.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.client.http import Http
from benchmarks.client.pages import Event, Failed, Page, TaskApi, TaskApi1

Figures = dict[str, float]

LIMIT = 30.0  # seconds for everything that has to happen
WARM_UP = 20  # runs before anything is timed
MAY_BE_LOST = 3  # runs; after so many, no more runs are timed one after another
LOST_AFTER = 10.0  # seconds after the last start: a run that ends later is lost
SETTLED = 0.5  # seconds without a text: all subscribers have their first texts
SILENT = 5.0  # seconds without a text: no more are coming
LOOK = 0.1  # seconds between two looks
OPENED_AT_ONCE = 50  # sockets
NUMBERS, SUM = [1, 2, 3], 6
AWAITED = 5  # runs that a crowd waits for: half of the worker's threads
MESSAGES = 5  # of each of them


@asynccontextmanager
async def pages(kind: type[Page], port: int, count: int) -> AsyncIterator[list[Page]]:
    """So many open pages."""
    opened: list[Page] = []
    try:
        for first in range(0, count, OPENED_AT_ONCE):
            batch = [kind(port) for _ in range(first, min(first + OPENED_AT_ONCE, count))]
            await asyncio.gather(*(page.open() for page in batch))
            opened += batch
        yield opened
    finally:
        for page in opened:
            page.close()


async def run_sum(page: Page) -> None:
    result = await page.run("sum", numbers=NUMBERS)
    if result != SUM:
        raise RuntimeError(f"A sum is wrong: expected {SUM}, got {result!r}.")


async def timed(action: Awaitable[Any], limit: float = LIMIT) -> float:
    """The seconds of one run; TimeoutError if it takes longer than the page's patience."""
    begun = time.perf_counter()
    await asyncio.wait_for(action, limit)
    return time.perf_counter() - begun


async def run(kind: type[Page], port: int, *, runs: int, seconds: float, pause: float) -> Figures:
    """One page, one run after another: from the call to the moment when the page knows the result.

    It pauses for up to `pause` seconds between two runs. If a worker polls, runs begin at all moments of its interval.
    """
    async with pages(kind, port, 1) as [page]:
        times, lost = await _run_sums(
            page, lambda times: len(times) < WARM_UP + runs and sum(times) < seconds, pause=pause
        )
    timed_runs = times[min(WARM_UP, len(times) // 2) :]
    return {
        "p50": quantile(timed_runs, 0.5),
        "p99": quantile(timed_runs, 0.99),
        "ended": len(times) / (len(times) + lost),
    }


async def _run_sums(
    page: Page, going_on: Callable[[list[float]], bool], *, pause: float = 0
) -> tuple[list[float], int]:
    """One run after another: the seconds of those that ended, and the number of the others."""
    times: list[float] = []
    lost = 0
    while going_on(times) and lost <= MAY_BE_LOST:
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        try:
            times.append(await timed(run_sum(page), page.patience))
        except (Failed, OSError):  # TimeoutError is an OSError
            lost += 1
    return times, lost


async def busy(kind: type[Page], port: int, *, seconds: float) -> Figures:
    """One page, one run after another, while the worker executes a task that computes for so many seconds."""
    async with pages(kind, port, 2) as [other, page]:
        await _run_sums(page, lambda times: not times)
        computing = asyncio.create_task(other.run("compute", seconds=seconds))
        until = time.perf_counter() + seconds
        times, lost = await _run_sums(page, lambda times: time.perf_counter() < until)
        await asyncio.wait({computing}, timeout=LOST_AFTER)
        if not computing.cancel():
            computing.result()  # raise if it failed
    return {"p50": quantile(times, 0.5), "ended": len(times) / (len(times) + lost)}


async def answer(kind: type[Any], port: int, *, runs: int) -> Figures:
    """A frame that asks for nothing, and its answer."""
    async with pages(kind, port, 1) as [page]:
        times = [await timed(page.answer()) for _ in range(WARM_UP + runs)][WARM_UP:]
    return {"p50": quantile(times, 0.5)}


async def poll(kind: type[TaskApi1], port: int, *, answers: int, pages_at_once: int) -> Figures:
    """A finished run that is read again and again: by one page, by several at once, and if they know its state."""
    async with pages(kind, port, pages_at_once) as opened:
        first = opened[0]
        name = await first.start("sum", numbers=NUMBERS)
        deadline = time.perf_counter() + LIMIT
        while (run := await first.ask_for(name))["status"] != "succeeded":
            if time.perf_counter() > deadline:
                raise TimeoutError(f"A run did not end within {LIMIT} s: {run}")

        async def ask(page: TaskApi1, count: int, known: str | None = None) -> list[float]:
            times = []
            for _ in range(count):
                begun = time.perf_counter()
                answer = await page.ask_for(name, known)
                times.append(time.perf_counter() - begun)
                if answer != (run if known is None else None):
                    raise RuntimeError(f"A finished run changed from {run} to {answer}.")
            return times

        async def rate(known: str | None = None) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(ask(page, answers // pages_at_once, known) for page in opened))
            return answers // pages_at_once * pages_at_once / (time.perf_counter() - begun)

        figures = {"p50": quantile(await ask(first, answers), 0.5), "rate": await rate()}
        tag = first.http.head.get("etag")
        if tag is not None:  # 1.x has none
            figures["unchanged"] = await rate(tag)
    return figures


async def crowd(kind: type[TaskApi], port: int, *, directory: str, waiting: int, runs: int, seconds: float) -> Figures:
    """One page, one `sum` after another, while others wait for a few runs, by long polls and by streams of events."""
    gate = Path(directory) / f"gate-{time.time_ns()}"
    told = {"gate": str(gate), "seconds": 1.0, "progress": 20, "messages": MESSAGES}
    async with pages(kind, port, 1) as [page]:
        names = [await page.start("tell", **told) for _ in range(AWAITED)]
        everyone = [names[number % AWAITED] for number in range(waiting)]
        polls = [asyncio.create_task(_wait_for(Http(port), name)) for name in everyone]
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(Http(port).stream(f"/tasks/{name}/events/", begun.release)) for name in everyone]
        for _ in streams:  # they were opened after the polls
            await asyncio.wait_for(begun.acquire(), LIMIT)
        times, lost = await _run_sums(page, lambda times: len(times) < WARM_UP + runs and sum(times) < seconds)
        gate.with_suffix(".new").write_text(repr(time.time()))
        gate.with_suffix(".new").rename(gate)
        ended = await asyncio.gather(*polls)
        texts = await asyncio.gather(*streams)
    complete = sum(text.count(b"event: message") == MESSAGES and b"event: finished" in text for text in texts)
    timed_runs = times[min(WARM_UP, len(times) // 2) :]
    return {
        "p50": quantile(timed_runs, 0.5),
        "p99": quantile(timed_runs, 0.99),
        "ended": (sum(ended) + complete) / (2 * waiting + lost),
    }


async def _wait_for(http: Http, name: str) -> bool:
    """Whether the run has succeeded, once it has ended."""
    try:
        while True:
            run = await http.ask("GET", f"/tasks/{name}/", prefer="wait=60")
            if run["status"] not in ("pending", "running"):
                return bool(run["status"] == "succeeded")
    finally:
        http.close()


async def burst(kind: type[Page], port: int, *, runs: int, at_once: int, seconds: float) -> Figures:
    """Many pages at once, each with one run after another; no run begins after `seconds`.

    If a run takes too long, its page is left waiting, and another page takes its place.
    """
    numbers = iter(range(runs))
    running: list[asyncio.Task[None]] = []

    async with pages(kind, port, at_once) as opened:
        begun = time.perf_counter()

        async def keep_running(page: Page) -> None:
            for _ in numbers:
                if time.perf_counter() - begun > seconds:
                    break
                task = asyncio.create_task(run_sum(page))
                running.append(task)
                if not (await asyncio.wait({task}, timeout=kind.patience))[0]:
                    page = kind(port)
                    await page.open()
                    opened.append(page)

        await asyncio.gather(*map(keep_running, tuple(opened)))
        driven = time.perf_counter() - begun
        in_time = sum(map(_succeeded, running))
        _, lost = await asyncio.wait(running, timeout=LOST_AFTER)
        for task in lost:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
    for outcome in outcomes:
        raise_if_wrong(outcome)
    return {"rate": in_time / driven, "ended": sum(map(_succeeded, running)) / len(running), "runs": len(running)}


def raise_if_wrong(outcome: object) -> None:
    """Raise the error of a wrong result; that a run is refused or fails is a figure."""
    if isinstance(outcome, Exception) and not isinstance(outcome, (Failed, OSError)):
        raise outcome


def _succeeded(run: asyncio.Task[None]) -> bool:
    """Whether the page of the run knows the result."""
    return run.done() and not run.cancelled() and run.exception() is None


async def call(kind: type[Page], port: int, *, calls: int) -> Figures:
    """A task that calls `set_progress` in a loop while a page follows it: seconds for one call."""
    async with pages(kind, port, 1) as [page]:
        taken = await asyncio.wait_for(page.run("pace", calls=calls), LIMIT)
    return {"seconds": taken / calls}


async def followers(
    kind: type[Page], port: int, *, directory: str, count: int, seconds: float, progress: int, messages: int
) -> Figures:
    """One run with many subscribers; `progress` and `messages` are how many a second.

    The run waits for a gate. Its progress and messages are the microseconds since the gate opened, so that their delay
    is known when they arrive.
    """
    gate = Path(directory) / f"gate-{time.time_ns()}"
    texts: list[list[tuple[float, bytes]]] = [[] for _ in range(count)]

    def sink(mine: list[tuple[float, bytes]]) -> Any:
        return lambda text: mine.append((time.time(), text))

    async with pages(kind, port, count + 1) as [first, *others]:
        name = await first.start("tell", gate=str(gate), seconds=seconds, progress=progress, messages=messages)
        await asyncio.gather(*(page.follow(name, sink(mine)) for page, mine in zip(others, texts, strict=True)))
        await _quiet(texts, LIMIT, lambda: all(texts))  # each has an answer when it follows
        await _quiet(texts, SETTLED)
        settled = [len(mine) for mine in texts]
        opened = time.time()
        gate.with_suffix(".new").write_text(repr(opened))
        gate.with_suffix(".new").rename(gate)  # in one step, so that no task reads half of it
        await asyncio.sleep(seconds)
        silent = max(SILENT, kind.patience)
        await _quiet(texts, silent, lambda: all(mine and kind.read(mine[-1][1]).kind == "end" for mine in texts))
    told = [
        [(arrived, kind.read(text)) for arrived, text in mine[skip:]] for mine, skip in zip(texts, settled, strict=True)
    ]
    return what_was_told(told, opened, calls=int(seconds * progress), messages=int(seconds * messages))


def what_was_told(told: list[list[tuple[float, Event]]], opened: float, *, calls: int, messages: int) -> Figures:
    delays, ends, delivered, progress = [], 0, 0, 0
    for mine in told:
        said = [event.value for _, event in mine if event.kind == "message"]
        if said != sorted(set(said)):
            raise RuntimeError("A subscriber got a message twice, or messages in another order.")
        delivered += len(said)
        progress += sum(event.kind == "progress" for _, event in mine)
        ends += sum(event.kind == "end" for _, event in mine[-1:])
        delays += [arrived - opened - event.value / 1e6 for arrived, event in mine if event.kind != "other"]
    expected = messages or calls
    return {
        "delivered": (delivered if messages else progress) / (expected * len(told)),
        "ends": ends / len(told),
        "p50": quantile(delays, 0.5),
        "p99": quantile(delays, 0.99),
        "progress": progress / len(told),
    }


async def memory(kind: type[Page], port: int, *, sockets: int, pid: int) -> Figures:
    """Bytes by which the web server grows for each open and idle socket."""
    async with pages(kind, port, sockets // 10):
        pass  # what the first sockets need once is allocated now
    before = await resident(pid)
    async with pages(kind, port, sockets):
        after = await resident(pid)
    return {"per_socket": (after - before) / sockets}


async def resident(pid: int) -> int:
    """The resident memory of the process in bytes, after a moment of rest."""
    await asyncio.sleep(0.5)  # the last handshakes still hold some
    listing = await asyncio.to_thread(
        subprocess.run,
        ["ps", "-o", "rss=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(listing.stdout) * 1024


async def _quiet(texts: list[list[Any]], seconds: float, complete: Callable[[], bool] = lambda: False) -> None:
    """Return when nothing has arrived for `seconds`, or as soon as `complete` is true."""
    started = changed = time.monotonic()
    count = -1
    while time.monotonic() < min(changed + seconds, started + 2 * LIMIT) and not complete():
        if (now := sum(map(len, texts))) != count:
            count, changed = now, time.monotonic()
        await asyncio.sleep(LOOK)


def quantile(values: list[float], fraction: float) -> float:
    """The median; NaN if there are no values."""
    return sorted(values)[round(fraction * (len(values) - 1))] if values else float("nan")
