"""The measures of growth: load that does not wait for answers, and much of one thing."""

from __future__ import annotations

import asyncio
import time

from benchmarks.client.measures import LIMIT, Figures, pages, quantile, raise_if_wrong, resident, run_sum, timed
from benchmarks.client.pages import Page, TaskApi

PAGES = 50  # they share an open load
LONG = 240.0  # seconds for what takes long
CALM = 20  # runs one after another: their median shows whether the load is over
BACK = 2.0  # times the median before the load, at most: the load is over


async def open_loop(kind: type[Page], port: int, *, rate: int, seconds: float) -> Figures:
    """Runs that begin at that rate, whether or not the earlier ones have ended, and the time until all is calm again.

    The time of a run counts from the moment at which it should have begun.
    """
    times: list[float] = []
    running: list[asyncio.Task[None]] = []

    async def one(page: Page, due: float) -> None:
        await run_sum(page)
        times.append(time.perf_counter() - due)

    async with pages(kind, port, PAGES) as opened:
        calm = await _calm(opened[0])
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            running.append(asyncio.create_task(one(opened[number % PAGES], due)))
        driven = time.perf_counter() - begun
        in_time = len(times)
        _, lost = await asyncio.wait(running, timeout=LONG)
        drained = time.perf_counter() - begun - driven
        for task in lost:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        while await _calm(opened[0]) > BACK * calm and time.perf_counter() - begun < LONG:
            pass
        back = time.perf_counter() - begun - driven
    for outcome in outcomes:
        raise_if_wrong(outcome)
    return {
        "rate": in_time / driven,
        "ended": len(times) / len(running),
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
        "drained": drained,
        "back": back,
    }


async def idle(kind: type[Page], port: int, *, sockets: int, runs: int, pid: int) -> Figures:
    """Runs on one page, while so many others are open and idle."""
    before = await resident(pid)
    async with pages(kind, port, sockets), pages(kind, port, 1) as [page]:
        after = await resident(pid)
        times = [await timed(run_sum(page)) for _ in range(runs)]
    return {
        "per_socket": (after - before) / max(1, sockets),
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
    }


async def on_one_socket(kind: type[Page], port: int, *, runs: int) -> Figures:
    """So many runs at once on one socket: seconds until the last has ended."""
    async with pages(kind, port, 1) as [page]:
        taken = await timed(asyncio.gather(*(run_sum(page) for _ in range(runs))), LONG)
    return {"seconds": taken, "rate": runs / taken}


async def long_list(kind: type[Page], port: int, *, numbers: int, runs: int) -> Figures:
    """`sum` of that many numbers."""
    inputs = list(range(numbers))

    async def one(page: Page) -> None:
        result = await page.run("sum", numbers=inputs)
        if result != sum(inputs):
            raise RuntimeError(f"A sum is wrong: expected {sum(inputs)}, got {result!r}.")

    async with pages(kind, port, 1) as [page]:
        times = [await timed(one(page)) for _ in range(runs)]
    return {"p50": quantile(times, 0.5)}


async def many_messages(kind: type[TaskApi], port: int, *, messages: int) -> Figures:
    """A run with so many messages: seconds until its page has all of them and the end."""
    texts: list[bytes] = []
    ended = asyncio.get_running_loop().create_future()

    def sink(text: bytes) -> None:
        texts.append(text)
        if b'"finished"' in text and kind.read(text).kind == "end":
            ended.set_result(None)

    async with pages(kind, port, 2) as [first, page]:
        begun = time.perf_counter()
        name = await first.start("say", count=messages)
        await page.follow(name, sink)
        await asyncio.wait_for(ended, LONG)
        taken = time.perf_counter() - begun
    said = [value for text in texts for value in kind.messages(text)]
    if said != list(range(messages)):
        raise RuntimeError(f"Expected {messages} messages in order, got {len(said)}, or another order.")
    return {"seconds": taken, "rate": messages / taken}


async def _calm(page: Page) -> float:
    """The median of a few runs, one after another."""
    return quantile([await timed(run_sum(page), LIMIT) for _ in range(CALM)], 0.5)
