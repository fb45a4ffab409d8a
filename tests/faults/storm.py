"""A storm: runs and followers of all kinds, while faults strike. account.py says what went wrong."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
from playwright.async_api import Browser

from tests.faults import kinds, rows
from tests.faults.account import Account
from tests.faults.follower import Follower, Visitor
from tests.faults.kinds import Variant
from tests.faults.last_faults import LastFaults
from tests.faults.network import Road
from tests.faults.pages import Tabs
from tests.faults.poller import Poller
from tests.faults.promises import FINAL
from tests.faults.reader import Reader, Waiter
from tests.faults.site import Site
from tests.faults.stack import CALM, TAKEN_UP, FaultStack
from tests.faults.striking import Faults
from tests.support.waiting import until

BUSY = 120  # clients that wait for something: no more runs are started while there are so many
VARIANT_EVERY = 3  # of so many runs, one is followed by a run of a kind
LOGOUT_AFTER = 2.0  # seconds after a visitor's subscription
READS_AFTER = (1.0, 6.0)  # seconds after a first frame before a slow reader reads on


class Storm:
    """Starts runs and followers for so many seconds, and until there are so many runs, while faults strike.

    The seed gives the same runs and the same faults in the same order, but not at the same moments.
    """

    def __init__(
        self,
        stack: FaultStack,
        seed: int,
        seconds: float,
        runs: int,
        *,
        kinds: frozenset[str] = frozenset(),
        browser: Browser | None = None,
    ) -> None:
        self.stack = stack
        self.kinds = kinds
        self.browser = browser  # for the kinds that need one
        self.seconds = seconds
        self.least = runs
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.site = Site(stack)
        self.runs: dict[str, dict[str, Any]] = {}  # the inputs of each run, by its uuid
        self.variants = self._variants()
        self.of_kind: Counter[str] = Counter()  # runs, by kind
        self.fleeting: set[str] = set()  # runs that the sweep has to delete during the storm
        self.isolated: set[str] = set()  # runs that have to be executed in processes of their own
        self.visitors: list[Visitor] = []
        self.road: Road | None = None
        self.tabs: Tabs | None = None
        self.running = AsyncExitStack()
        self.followers: list[Follower] = []
        self.pollers: list[Poller] = []
        self.waiters: list[Waiter] = []
        self.following: list[asyncio.Task[Any]] = []
        self.most_followers = 0
        self.faults = Faults(stack, self.site, seed, kinds, followers=self.followers, runs=self.runs)
        self.broken: list[str] = []  # what went wrong before the account
        self.account = Account(self)
        self.began = self.ended = time.time()

    async def run(self) -> None:
        """Return when all runs have ended, or had the time to."""
        await self.prepare()
        striking = asyncio.create_task(self.faults.strike_on())
        try:
            await self.start_many(striking)
        finally:
            self.faults.calm.set()
            await striking
            await asyncio.gather(*self.faults.under_way)
            await asyncio.to_thread(self.stack.heal)
        await LastFaults(self).strike()
        await asyncio.wait(self.following, timeout=CALM)
        if self.tabs is not None:
            await self.tabs.settle(CALM)
            self.runs |= {record["uuid"]: record["inputs"] for record in self.tabs.records if record["uuid"]}
        with suppress(TimeoutError):  # some runs had no follower
            await until(lambda: set(rows.statuses(self.stack).values()) <= set(FINAL), CALM)
        with suppress(TimeoutError):
            await until(lambda: self.fleeting.isdisjoint(rows.statuses(self.stack)), TAKEN_UP)
        self.ended = time.time()

    async def prepare(self) -> None:
        """Open what the kinds need beside the servers: a road for strangers, and tabs."""
        if self.kinds & {"stranger", "pages"}:
            self.road = self.faults.road = await self.running.enter_async_context(Road(self.stack.ports.values))
            sites = [(self.road.url, "polling")] if "stranger" in self.kinds else []
            if "pages" in self.kinds:
                sites += [(self.road.url, "auto"), (self.site.url(), "auto")]
            assert self.browser is not None
            self.tabs = Tabs(self.browser, sites)
            await self.tabs.open()
        self.began = time.time()

    async def close(self) -> None:
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)
        await self.running.aclose()
        await self.site.close()

    # Clients

    async def start_many(self, striking: asyncio.Task[None]) -> None:
        while time.time() < self.began + self.seconds or len(self.runs) < self.least:
            if sum(not task.done() for task in self.following) < BUSY:
                await self.start_any()
            connected = sum(follower.connection is not None for follower in self.followers)
            self.most_followers = max(self.most_followers, connected)
            for task in (striking, *self.faults.under_way):
                if task.done():
                    task.result()  # if a fault could not be done, this test is wrong
            await asyncio.sleep(self.seconds / self.least / 2)

    def _variants(self) -> Iterator[Variant] | None:
        """The runs of the kinds, in turns, so that a short storm has all of them."""
        found = kinds.variants(self.kinds, self.random) if self.kinds else []
        if "pages" in self.kinds or "stranger" in self.kinds:
            plain = [Variant("pages", task, {"steps": 12, "seconds": 4}) for task in ("work", "async_work", "work")]
            found += plain + [variant for variant in found if variant.kind == "large"][:1] * ("pages" in self.kinds)
        return itertools.cycle(found) if found else None

    async def start_any(self) -> None:
        """Start a run by REST or by WebSocket, with clients that follow it; now and then a run of a kind as well."""
        steps = self.random.randrange(1, 60)
        seconds, failures = self.random.uniform(0, 4), self.random.choice([0, 0, 1, 2])
        task = self.random.choice(["work", "async_work", "flaky_work"])
        over_rest, followers = self.random.random() < 0.5, self.random.randrange(6)
        polled, cancelled = self.random.random() < 0.2, self.random.random() < 0.1
        waited_for = self.random.random() < 0.2
        after = self.random.uniform(0, 3)
        uuid = await self.start(task, over_rest=over_rest, steps=steps, seconds=seconds, failures=failures)
        for number in range(followers):
            self.follow((Reader if number % 3 == 1 else Follower)(self.site.ws_url, uuid))
        if waited_for:
            self.waiters.append(Waiter(self.site.url, uuid))
            self.following.append(asyncio.create_task(self.waiters[-1].follow(self.seconds + 2 * CALM)))
        if polled:
            self.pollers.append(Poller(self.site, uuid, self.road if "stranger" in self.kinds else None))
            self.following.append(asyncio.create_task(self.pollers[-1].follow()))
        if cancelled:
            self.following.append(asyncio.create_task(self.cancel(uuid, after)))
        if self.variants is not None and len(self.runs) % VARIANT_EVERY == 0:
            await self.start_variant(next(self.variants))

    def expect_deletion(self, uuid: str) -> None:
        """The run is deleted a moment after its end; nothing else is checked of it."""
        self.fleeting.add(uuid)
        del self.runs[uuid]

    async def start_variant(self, variant: Variant) -> None:
        """Start a run of a kind, with clients that follow it."""
        self.of_kind[variant.kind] += 1
        inputs = {"failures": 0, **variant.inputs}
        match variant.kind, variant.task:
            case "logout", _:
                self.following.append(asyncio.create_task(self.visit(self.of_kind["logout"], variant.task, inputs)))
            case "pages", _:
                assert self.tabs is not None
                await self.tabs.start(self.of_kind["pages"], variant.task, inputs)
            case _, "fleeting_work":
                self.expect_deletion(await self.start(variant.task, **inputs))
            case _, "billed_work":
                uuid = await self.start(variant.task, **inputs)
                if await until(lambda: rows.try_to_bill(self.stack, uuid), CALM) == "billed":
                    self.follow(Follower(self.site.ws_url, uuid))
                else:  # it had ended, and its seconds were over, before the start was answered
                    self.expect_deletion(uuid)
            case "slow_reader", _:
                uuid = await self.start(variant.task, **inputs)
                self.follow(Follower(self.site.ws_url, uuid, reads_after=self.random.uniform(*READS_AFTER)))
                self.follow(Follower(self.site.ws_url, uuid))
            case _:
                uuid = await self.start(variant.task, over_rest=self.of_kind[variant.kind] % 2 == 0, **inputs)
                self.follow(Follower(self.site.ws_url, uuid))
                if variant.kind == "isolated":
                    self.isolated.add(uuid)

    async def visit(self, number: int, task: str, inputs: dict[str, Any]) -> None:
        """Log in, start a run, follow it, and log out while it goes on."""
        async with httpx.AsyncClient(timeout=20) as browser:  # with cookies of its own
            headers = await self.site.enter(browser, f"/enter/visitor-{number}/")
            visitor = Visitor(self.site.ws_url, headers=headers, task=task, inputs=inputs, idempotency_key="once")
            self.visitors.append(visitor)
            following = asyncio.create_task(visitor.follow(self.seconds + 2 * CALM))
            await visitor.subscribed.wait()
            assert visitor.uuid is not None
            self.runs[visitor.uuid] = inputs
            await asyncio.sleep(LOGOUT_AFTER)
            visitor.asked = time.time()
            await self.site.ask("POST", "/leave/", headers=headers)
            visitor.left = time.time()
            await following

    async def start(self, task: str, *, over_rest: bool = True, **inputs: Any) -> str:
        """The uuid of a new run; the request is repeated, with its idempotency key, until an answer comes."""
        key, again = f"{self.random.random()}", self.random.random() < 0.3
        if over_rest:
            request = {"json": {"task": task, "inputs": inputs}, "headers": {"Idempotency-Key": key}}
            if again:  # as if the first answer had been lost: it has to be one run all the same
                await self.site.ask("POST", "/tasks/", **request)
            answer = await self.site.ask("POST", "/tasks/", **request)
            assert answer.status_code in (200, 201), answer.text
            uuid = answer.json()["uuid"]
        else:
            first = Follower(self.site.ws_url, task=task, inputs=inputs, idempotency_key=key)
            self.follow(first)
            await first.subscribed.wait()
            assert first.uuid is not None
            uuid = first.uuid
        self.runs[uuid] = inputs
        return uuid

    def follow(self, follower: Follower) -> None:
        self.followers.append(follower)
        self.following.append(asyncio.create_task(follower.follow(self.seconds + 2 * CALM)))

    async def cancel(self, uuid: str, after: float) -> None:
        await asyncio.sleep(after)
        assert (await self.site.ask("POST", f"/tasks/{uuid}/cancel/")).status_code in (202, 409)
