"""A storm: runs and followers of all kinds on one side, faults on the other, and the account of both."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from playwright.async_api import Browser

from tests.faults import kinds
from tests.faults.executions import Strike, Takeover, check_run, takeovers, zombies
from tests.faults.follower import PAUSE, Follower, Visitor
from tests.faults.kinds import Variant
from tests.faults.network import STRANGERS, Road
from tests.faults.pages import Tabs, check_page, was_refused
from tests.faults.promises import FINAL, check, check_visit
from tests.faults.stack import TAKEN_UP, FaultStack
from tests.support.waiting import until

FAULTS = (
    "kill_worker", "stop_worker", "freeze_worker", "kill_web", "flush", "restart_valkey", "restart_postgres",
    "cut_sockets",
)  # fmt: skip
ROUND = (*FAULTS, "kill_worker", "cut_sockets")  # each in a round, in another order every time
FAULT_EVERY = (0.5, 2.5)  # seconds between two faults; those that take longer go on meanwhile
AT_ONCE = 8  # faults under way: on a slow machine they would pile up, and no server would ever serve
BUSY = 120  # followers, pollers and who cancels: no more are started while there are so many
CALM = 120.0  # seconds after the last fault in which all runs have to end: every attempt may wait for a lease
POLL_INTERVAL = 0.25  # seconds between two questions of a poller
STATUSES = "SELECT uuid, status FROM taskapi_taskinfo"
WORDS = 1000  # characters that one failure may have in the account of all
VARIANT_EVERY = 3  # runs: one of the kinds that can be left out
LOGOUT_AFTER = 2.0  # seconds after the start of the run
READS_AFTER = (1.0, 6.0)  # seconds after a subscription that a slow reader begins to read
PATIENCE = 30.0  # seconds for something that takes a moment, on a machine that has other things to do
HELD = 60  # seconds for which a row is held at most: more than anybody waits for its neighbours
BILL = "INSERT INTO faults_bill (run_id) SELECT id FROM taskapi_taskinfo WHERE uuid = %s RETURNING id"
LOCKED = "SELECT 1 FROM taskapi_taskinfo WHERE uuid = %s FOR UPDATE NOWAIT"
AFTERWARDS = 2.0  # seconds after an outage of the database in which a server may still stumble over it


class Poller:
    """Follows a run over REST, as a client without WebSockets does."""

    def __init__(self, storm: "Storm", uuid: str, road: Road | None = None) -> None:
        self.storm = storm
        self.uuid = uuid
        self.road = road  # to the server, where a stranger may answer in its place
        self.messages: list[Any] = []
        self.answers: list[dict[str, Any]] = []

    async def follow(self) -> None:
        while not self.answers or self.answers[-1]["status"] not in FINAL:
            run = (await self._answer()).json()
            self.messages += run["messages"]
            self.answers.append(run)
            await asyncio.sleep(POLL_INTERVAL)

    async def _answer(self) -> httpx.Response:
        """The server's answer, and nobody else's: that is JSON."""
        path = f"/tasks/{self.uuid}/?after={len(self.messages)}"
        while self.road is not None:
            answer = await self.storm.ask("GET", path, url=self.road.url)
            if answer.headers["content-type"] == "application/json":
                return answer
            await asyncio.sleep(POLL_INTERVAL)
        return await self.storm.ask("GET", path)

    def check(self, run: dict[str, Any]) -> None:
        """What was answered is what is so in the end, and nothing went backwards on the way."""
        assert self.messages == run["messages"]
        for name in ("status", "progress", "target", "seq", "message_count", "outputs", "error", "attempt"):
            assert self.answers[-1][name] == run[name]
        seqs = [answer["seq"] for answer in self.answers]
        assert seqs == sorted(seqs)
        progress = [(answer["attempt"], -1 if (at := answer["progress"]) is None else at) for answer in self.answers]
        assert progress == sorted(progress)


class Storm:
    """Starts runs and followers, strikes, and checks.

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
        self.fate = random.Random(seed)  # noqa: S311 - of the faults: two streams, or neither would be the same again
        self.client = httpx.AsyncClient(timeout=20)
        self.runs: dict[str, dict[str, Any]] = {}  # by uuid, the inputs of what was started
        self.variants = self._variants()
        self.of_kind: Counter[str] = Counter()  # runs, by kind
        self.fleeting: set[str] = set()  # runs that are to be deleted meanwhile
        self.visitors: list[Visitor] = []
        self.road: Road | None = None
        self.tabs: Tabs | None = None
        self.running = AsyncExitStack()
        self.followers: list[Follower] = []
        self.pollers: list[Poller] = []
        self.following: list[asyncio.Task[None]] = []
        self.most_followers = 0
        self.strikes: list[Strike] = []
        self.under_way: list[asyncio.Task[None]] = []
        self.calm = asyncio.Event()
        self.locks = {name: asyncio.Lock() for name in (*stack.workers, *stack.ports, "valkey", "postgres")}
        self.errors: list[tuple[float, httpx.Response]] = []  # answers that say that the server is to blame
        self.lost: list[str] = []
        self.stuck: list[str] = []
        self.broken: list[str] = []
        self.statuses: Counter[str] = Counter()
        self.began = self.ended = time.time()

    async def run(self) -> None:
        await self.prepare()
        striking = asyncio.create_task(self.strike_on())
        try:
            await self.start_many(striking)
        finally:
            self.calm.set()
            await striking
            await asyncio.gather(*self.under_way)
            await asyncio.to_thread(self.stack.heal)
        await self.last_faults()
        await asyncio.wait(self.following, timeout=CALM)
        if self.tabs is not None:
            await self.tabs.settle(CALM)
            self.runs |= {record["uuid"]: record["inputs"] for record in self.tabs.records if record["uuid"]}
        with suppress(TimeoutError):  # some runs had no follower
            await until(lambda: set(self.rows().values()) <= set(FINAL), CALM)
        with suppress(TimeoutError):
            await until(lambda: self.fleeting.isdisjoint(self.rows()), TAKEN_UP)
        self.ended = time.time()

    async def prepare(self) -> None:
        """What the kinds need beside the servers."""
        if self.kinds & {"stranger", "pages"}:
            self.road = await self.running.enter_async_context(Road(self.stack.ports.values))
            sites = [(self.road.url, "polling")] if "stranger" in self.kinds else []
            if "pages" in self.kinds:
                sites += [(self.road.url, "auto"), (self.url(), "auto")]
            assert self.browser is not None
            self.tabs = Tabs(self.browser, sites)
            await self.tabs.open()
        self.began = time.time()

    async def close(self) -> None:
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)
        await self.running.aclose()
        await self.client.aclose()

    # Clients

    def url(self) -> str:
        return f"http://127.0.0.1:{random.choice(list(self.stack.ports.values()))}"  # noqa: S311 - no secret

    def ws_url(self) -> str:
        return f"{self.url().replace('http', 'ws')}/tasks/ws/"

    async def ask(self, method: str, path: str, url: str | None = None, **options: Any) -> httpx.Response:
        """The answer of whichever server gives one."""
        while True:
            asked = time.time()
            try:
                answer = await self.client.request(method, (url or self.url()) + path, **options)
                if answer.status_code < 500:
                    return answer
                self.errors.append((asked, answer))
            except httpx.TransportError:
                pass
            await asyncio.sleep(PAUSE)

    async def start_many(self, striking: asyncio.Task[None]) -> None:
        while time.time() < self.began + self.seconds or len(self.runs) < self.least:
            if sum(not task.done() for task in self.following) < BUSY:
                await self.start_any()
            connected = sum(follower.connection is not None for follower in self.followers)
            self.most_followers = max(self.most_followers, connected)
            for task in (striking, *self.under_way):
                if task.done():
                    task.result()  # a fault that could not be done is one of this test
            await asyncio.sleep(self.seconds / self.least / 2)

    def _variants(self) -> "itertools.cycle[Variant] | None":
        """The runs of the kinds, in turns: so that a short storm has them all."""
        found = kinds.variants(self.kinds, self.random) if self.kinds else []
        if "pages" in self.kinds or "stranger" in self.kinds:
            plain = [Variant("pages", task, {"steps": 12, "seconds": 4}) for task in ("work", "async_work", "work")]
            found += plain + [variant for variant in found if variant.kind == "large"][:1] * ("pages" in self.kinds)
        return itertools.cycle(found) if found else None

    async def start_any(self) -> None:
        """Start a run over one road or the other, and let some follow it; and now and then one of the kinds."""
        steps = self.random.randrange(1, 60)
        seconds, failures = self.random.uniform(0, 4), self.random.choice([0, 0, 1, 2])
        task = self.random.choice(["work", "async_work", "flaky_work"])
        over_rest, followers = self.random.random() < 0.5, self.random.randrange(6)
        polled, cancelled = self.random.random() < 0.2, self.random.random() < 0.1
        after = self.random.uniform(0, 3)
        uuid = await self.start(task, over_rest=over_rest, steps=steps, seconds=seconds, failures=failures)
        for _ in range(followers):
            self.follow(Follower(self.ws_url, uuid))
        if polled:
            self.pollers.append(Poller(self, uuid, self.road if "stranger" in self.kinds else None))
            self.following.append(asyncio.create_task(self.pollers[-1].follow()))
        if cancelled:
            self.following.append(asyncio.create_task(self.cancel(uuid, after)))
        if self.variants is not None and len(self.runs) % VARIANT_EVERY == 0:
            await self.start_variant(next(self.variants))

    async def start_variant(self, variant: Variant) -> None:
        """Start a run of a kind, with those who follow it."""
        self.of_kind[variant.kind] += 1
        inputs = {"failures": 0, **variant.inputs}
        match variant.kind, variant.task:
            case "logout", _:
                self.following.append(asyncio.create_task(self.visit(variant.task, inputs)))
            case "pages", _:
                assert self.tabs is not None
                await self.tabs.start(self.of_kind["pages"], variant.task, inputs)
            case _, "fleeting_work":
                uuid = await self.start(variant.task, **inputs)
                self.fleeting.add(uuid)
                del self.runs[uuid]
            case _, "billed_work":
                uuid = await self.start(variant.task, **inputs)
                await until(lambda: self.try_to_bill(uuid), CALM)
                self.follow(Follower(self.ws_url, uuid))
            case "slow_reader", _:
                uuid = await self.start(variant.task, **inputs)
                self.follow(Follower(self.ws_url, uuid, reads_after=self.random.uniform(*READS_AFTER)))
                self.follow(Follower(self.ws_url, uuid))
            case _:
                uuid = await self.start(variant.task, over_rest=self.of_kind[variant.kind] % 2 == 0, **inputs)
                self.follow(Follower(self.ws_url, uuid))

    def try_to_bill(self, uuid: str) -> bool:
        """Let a row of the project point to the run."""
        try:
            with self.stack.connect() as connection:
                assert connection.execute(BILL, [uuid]).fetchone() is not None, (
                    "it was deleted before it could be billed"
                )
        except psycopg.OperationalError:  # PostgreSQL is restarted just now
            return False
        return True

    async def visit(self, task: str, inputs: dict[str, Any]) -> None:
        """Be somebody who is logged in, starts a run, follows it, and logs out in the middle of it."""
        async with httpx.AsyncClient(timeout=20) as browser:  # with cookies of its own
            headers = await self.enter(browser, f"/enter/visitor-{len(self.visitors)}/")
            visitor = Visitor(self.ws_url, headers=headers, task=task, inputs=inputs, idempotency_key="once")
            self.visitors.append(visitor)
            following = asyncio.create_task(visitor.follow(self.seconds + 2 * CALM))
            await visitor.subscribed.wait()
            assert visitor.uuid is not None
            self.runs[visitor.uuid] = inputs
            await asyncio.sleep(LOGOUT_AFTER)
            await self.ask("POST", "/leave/", headers=headers)
            visitor.left = time.time()
            await following

    async def enter(self, browser: httpx.AsyncClient, path: str) -> dict[str, str]:
        """Log in, and return the header that shows it."""
        while "sessionid" not in browser.cookies:
            with suppress(httpx.TransportError):
                await browser.post(self.url() + path)
            await asyncio.sleep(PAUSE)
        return {"Cookie": f"sessionid={browser.cookies['sessionid']}"}

    async def start(self, task: str, *, over_rest: bool = True, **inputs: Any) -> str:
        """Start a run, and ask again, with its idempotency key, until an answer comes."""
        key, again = f"{self.random.random()}", self.random.random() < 0.3
        if over_rest:
            request = {"json": {"task": task, "inputs": inputs}, "headers": {"Idempotency-Key": key}}
            if again:  # as if the answer to the first had been lost: there is to be one run all the same
                await self.ask("POST", "/tasks/", **request)
            answer = await self.ask("POST", "/tasks/", **request)
            assert answer.status_code in (200, 201), answer.text
            uuid = answer.json()["uuid"]
        else:
            first = Follower(self.ws_url, task=task, inputs=inputs, idempotency_key=key)
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
        assert (await self.ask("POST", f"/tasks/{uuid}/cancel/")).status_code in (202, 409)

    # Faults

    async def strike_on(self) -> None:
        """Strike again and again. What is drawn is drawn in order, whatever has to wait for a server."""
        faults = (*ROUND, *(fault for kind, fault in kinds.FAULTS.items() if kind in self.kinds))
        while not self.calm.is_set():
            for fault in self.fate.sample(faults, len(faults)):
                await self.sleep(self.fate.uniform(*FAULT_EVERY))
                while self.are_under_way(AT_ONCE) and not self.calm.is_set():  # noqa: ASYNC110 - whichever ends first
                    await asyncio.sleep(PAUSE)
                if self.calm.is_set():
                    return
                self.under_way.append(asyncio.create_task(getattr(self, fault)()))

    def are_under_way(self, faults: int) -> bool:
        return sum(not task.done() for task in self.under_way) >= faults

    async def sleep(self, seconds: float) -> None:
        """Let a fault last, but not longer than the storm."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.calm.wait()

    @asynccontextmanager
    async def striking(self, fault: str, server: str | None = None, run: str | None = None) -> AsyncIterator[None]:
        """One fault at a time for each server, and the record of it."""
        async with self.locks[server] if server is not None else asyncio.Lock():
            process = self.stack.processes.get(server or "")
            strike = Strike(fault, process.popen.pid if process else None, time.time(), run=run)
            self.strikes.append(strike)
            yield
            strike.until = time.time()

    async def kill_worker(self, name: str | None = None) -> None:
        name = name or self.fate.choice(self.stack.workers)
        async with self.striking("kill_worker", name):
            self.stack.kill(name)
            await asyncio.to_thread(self.stack.start, name)

    async def stop_worker(self) -> None:
        name = self.fate.choice(self.stack.workers)
        async with self.striking("stop_worker", name):
            assert await asyncio.to_thread(self.stack.stop, name) == 0
            await asyncio.to_thread(self.stack.start, name)

    async def freeze_worker(self) -> None:
        name, seconds = self.fate.choice(self.stack.workers), self.fate.choice([3, 13, 13])
        async with self.striking("freeze_worker", name):
            self.stack.pause(name)
            await self.sleep(seconds)
            self.stack.resume(name)

    async def kill_web(self) -> None:
        name = self.fate.choice(list(self.stack.ports))
        async with self.striking("kill_web", name):
            self.stack.kill(name)
            await asyncio.to_thread(self.stack.start, name)

    async def flush(self) -> None:
        async with self.locks["valkey"], self.striking("flush"):
            self.stack.flush()

    async def restart_valkey(self) -> None:
        seconds = self.fate.choice([1, 5])
        async with self.striking("restart_valkey", "valkey"):
            await asyncio.to_thread(self.stack.stop_valkey)
            await self.sleep(seconds)
            await asyncio.to_thread(self.stack.valkey.start)

    async def restart_postgres(self) -> None:
        seconds = self.fate.choice([0, 2])
        async with self.striking("restart_postgres", "postgres"):
            await asyncio.to_thread(self.stack.stop_postgres)
            await self.sleep(seconds)
            await asyncio.to_thread(self.stack.start_postgres)

    async def cut_sockets(self) -> None:
        draws = [self.fate.random() for _ in range(BUSY)]  # as many of them each time
        async with self.striking("cut_sockets"):
            connected = (follower for follower in self.followers if follower.connection is not None)
            for follower, draw in zip(connected, draws, strict=False):
                if draw < 0.5:
                    follower.cut()

    async def hold_row(self) -> None:
        """Have a view cancel a run, and commit that seconds later."""
        seconds, draw = self.fate.choice([1, 4]), self.fate.random()
        running = [uuid for uuid, status in self.try_rows().items() if status == "running" and uuid in self.runs]
        if not running:
            return
        uuid = running[int(draw * len(running))]
        async with self.striking("hold_row", run=uuid):
            with suppress(httpx.TransportError):  # its server was killed: then nothing was asked
                await self.client.post(f"{self.url()}/cancel-slowly/{uuid}/{seconds}/")

    async def stranger(self) -> None:
        """Let somebody else answer those who ask for their runs by way of a proxy."""
        seconds, who = self.fate.uniform(1, 5), self.fate.choice(list(STRANGERS))
        assert self.road is not None
        async with self.striking("stranger"):
            self.road.block(who)
            await self.sleep(seconds)
            self.road.open()

    async def last_faults(self) -> None:
        """What the storm does when all else is whole, so that the time that it takes is the product's alone."""
        if "transaction" in self.kinds:
            await self.held_row()
        gate = self.stack.directory / "crowd"
        try:
            if "threads" in self.kinds:
                await self.crowds(gate)
            await self.two_lost()
        except TimeoutError:
            self.broken.append(f"runs were not executed, or not taken up, for {CALM:.0f} s")
            await asyncio.to_thread(self.stack.heal)
        finally:
            gate.touch()

    async def held_row(self) -> None:
        """Hold the row of a run until another one of its worker, which says and does as much, has ended."""
        gate, done = self.stack.directory / "neighbours", self.stack.directory / "released"
        inputs = {"steps": 6, "seconds": 0.5, "failures": 0, "gate": str(gate)}
        at: dict[str, str] = {}  # a run that it executes, by worker
        while True:
            neighbour = await self.start("gated_work", **inputs)
            execution, *_ = await until(lambda uuid=neighbour: self.stack.executions(uuid), CALM)
            held = at.setdefault(self.stack.names[execution["pid"]], neighbour)
            if held != neighbour:
                break
        holding = asyncio.create_task(self.client.post(f"{self.url()}/cancel-slowly/{held}/{HELD}/?gate={done}"))
        try:
            await until(lambda: self.is_locked(held), CALM)
            gate.touch()
            await until(lambda: self.rows()[neighbour] in FINAL, PATIENCE)
        except TimeoutError:
            self.broken.append(f"run {neighbour} waited for the row of run {held}, which somebody held")
        finally:
            done.touch()
            gate.touch()
            await holding

    def is_locked(self, uuid: str) -> bool:
        with self.stack.connect() as connection:
            try:
                connection.execute(LOCKED, [uuid])
            except psycopg.errors.LockNotAvailable:
                return True
        return False

    async def crowds(self, gate: Path) -> None:
        """Keep the threads of each worker busy; and let async runs, with their sync calls, end meanwhile."""
        crowded: set[str] = set()
        uuids: list[str] = []
        try:
            while crowded != set(self.stack.workers):
                uuids = [await self.start("crowded_work", steps=3, seconds=0.2, failures=0, gate=str(gate))]
                execution, *_ = await until(partial(self.stack.executions, *uuids), PATIENCE)
                crowded.add(self.stack.names[execution["pid"]])
                self.of_kind["threads"] += 1
            uuids = [await self.start("sensitive_work", steps=2, seconds=0.1, failures=0) for _ in crowded]
            await until(lambda: all(self.rows()[uuid] in FINAL for uuid in uuids), PATIENCE)
        except TimeoutError:
            self.broken.append(f"one of the async runs {uuids} waited for the threads of others")

    async def two_lost(self) -> None:
        """Freeze a worker until its run was taken up, and kill another: two leases expire at once.

        So each storm has a zombie that wakes up in calm weather.
        """
        at: dict[str, str] = {}  # a run that it executes, by worker
        while len(at) < 2:
            uuid = await self.start(self.random.choice(["work", "async_work"]), steps=60, seconds=4, failures=0)
            self.follow(Follower(self.ws_url, uuid))
            execution, *_ = await until(lambda uuid=uuid: self.stack.executions(uuid), CALM)
            at.setdefault(self.stack.names[execution["worker"]], uuid)
        frozen, killed = at
        async with self.striking("freeze_worker", frozen):
            self.stack.pause(frozen)
            await self.kill_worker(killed)
            await until(lambda: len(self.stack.executions(at[frozen])) > 1, CALM)
            self.stack.resume(frozen)

    # The account

    def rows(self) -> dict[str, str]:
        """The status of each run that there is, by uuid."""
        with self.stack.connect() as connection:
            return {str(uuid): status for uuid, status in connection.execute(STATUSES)}

    def try_rows(self) -> dict[str, str]:
        """The same, or nothing while PostgreSQL is away."""
        with suppress(psycopg.OperationalError):
            return self.rows()
        return {}

    async def check(self) -> list[str]:
        """Look at everything, and say what is wrong."""
        async with httpx.AsyncClient() as browser:  # of somebody who may see every run
            headers = await self.enter(browser, "/enter-as-staff/auditor/")
        statuses = self.rows()
        self.statuses = Counter(statuses.values())
        self.lost = [uuid for uuid in self.runs if uuid not in statuses]
        self.stuck = [uuid for uuid, status in statuses.items() if status not in FINAL]
        runs = {
            uuid: (await self.ask("GET", f"/tasks/{uuid}/", headers=headers)).json()
            for uuid in self.runs
            if uuid in statuses
        }
        for task in self.following:
            self._note("a client", task.result)
        for follower in self.followers:
            self._note(f"a follower of {follower.uuid}", check, follower, runs.get(follower.uuid or ""))
        for poller in self.pollers:
            self._note(f"a poller of {poller.uuid}", poller.check, runs.get(poller.uuid))
        for visitor in self.visitors:
            self._note(f"a visitor of {visitor.uuid}", check_visit, visitor, runs.get(visitor.uuid or ""))
        for record in self._records():
            if not was_refused(record):
                self._note(f"a page of {record['uuid']}", check_page, record, runs.get(record["uuid"]))
        for uuid, run in runs.items():
            self._note(f"run {uuid}", check_run, run, self.runs[uuid], self.stack.lines(uuid), self.strikes)
        known = self.runs.keys() | self.fleeting
        unknown = [uuid for uuid in statuses if uuid not in known]
        refused = [
            record for record in self._records() if was_refused(record)
        ]  # each may have started one all the same
        wrong = [f"run {uuid} was started by nobody" for uuid in unknown[len(refused) :]]
        wrong += [f"run {uuid} was not deleted in its time" for uuid in self.fleeting if uuid in statuses]
        wrong += [f"a page raised {error}" for error in (self.tabs.errors if self.tabs is not None else [])]
        wrong += [f"{refusal}" for refusal in self._refusals() if refusal != "unavailable"]
        wrong += [f"{answer}: {answer.text}" for asked, answer in self.errors if not self._database_was_away(asked)]
        late = [taken for taken in self._takeovers() if taken.clean and taken.seconds > TAKEN_UP]
        wrong += [f"taken up after {taken.seconds:.1f} s" for taken in late]
        return [*wrong, *self.broken]

    def _note(self, whose: str, look: Callable[..., object], *seen: Any) -> None:
        try:
            look(*seen)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it goes into the account
            self.broken.append(f"{whose}: {error!r}"[:WORDS])

    def _records(self) -> list[dict[str, Any]]:
        return self.tabs.records if self.tabs is not None else []

    def _refusals(self) -> list[str]:
        return [refusal["code"] for follower in self.followers for refusal in follower.refusals]

    def _database_was_away(self, at: float) -> bool:
        outages = (strike for strike in self.strikes if strike.fault == "restart_postgres")
        return any(strike.since - AFTERWARDS <= at <= strike.until + AFTERWARDS for strike in outages)

    def _takeovers(self) -> list[Takeover]:
        return [
            taken
            for uuid in self.runs
            for taken in takeovers(
                self.stack.lines(uuid), [strike for strike in self.strikes if strike.run in (None, uuid)]
            )
        ]

    def figures(self) -> dict[str, Any]:
        """What it went through."""
        executions = [line for uuid in self.runs for line in self.stack.executions(uuid)]
        taken_up = self._takeovers()
        names = {f"ws://127.0.0.1:{port}/tasks/ws/": name for name, port in self.stack.ports.items()}
        return {
            "seconds": round(self.ended - self.began, 1),
            "servers": len(self.stack.processes),
            "faults": Counter(strike.fault for strike in self.strikes),
            "runs": len(self.runs),
            "runs of kinds": self.of_kind,
            "runs deleted in their time": len(self.fleeting - self.rows().keys()),
            "statuses": self.statuses,
            "executions": len(executions),
            "executions by worker": Counter(self.stack.names[line["worker"]] for line in executions),
            "taken up": len(taken_up),
            "runs of zombies": sum(zombies(self.stack.lines(uuid), self.strikes) for uuid in self.runs),
            "longest takeover": round(max((taken.seconds for taken in taken_up if taken.clean), default=0), 1),
            "longest takeover amid other faults": round(max((taken.seconds for taken in taken_up), default=0), 1),
            "followers": len(self.followers),
            "most followers at once": self.most_followers,
            "connections": sum(follower.connections for follower in self.followers),
            "subscriptions by server": Counter(names[url] for follower in self.followers for url in follower.servers),
            "events": sum(len(frames) for follower in self.followers for frames in follower.subscriptions),
            "events dropped": self.stack.drops(),
            "refusals": Counter(self._refusals()),
            "parts fetched by REST": sum(follower.fetched for follower in self.followers),
            "logouts": Counter(visitor.ended[0] for visitor in self.visitors if visitor.ended is not None),
            "promises of pages": len(self._records()),
            "promises of pages settled": sum(len(record["outcomes"]) == 1 for record in self._records()),
            "starts of pages refused": sum(was_refused(record) for record in self._records()),
            "answers of strangers": self.road.answers if self.road is not None else 0,
            "pollers": len(self.pollers),
            "polls": sum(len(poller.answers) for poller in self.pollers),
            "server errors": len(self.errors),
            "lost": len(self.lost),
            "stuck": len(self.stuck),
            "broken": len(self.broken),
        }
