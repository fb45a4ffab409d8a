"""The faults of a storm: what strikes, when, and the record of it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import httpx

from tests.faults import kinds, rows
from tests.faults.executions import Strike
from tests.faults.follower import PAUSE, Follower
from tests.faults.network import STRANGERS, Road
from tests.faults.site import Site
from tests.faults.stack import FaultStack

FAULTS = (
    "kill_worker", "stop_worker", "freeze_worker", "kill_web", "flush", "restart_valkey", "restart_postgres",
    "cut_sockets",
)  # fmt: skip
ROUND = (*FAULTS, "kill_worker", "cut_sockets")  # all of these in each round, in a new order each time
FAULT_EVERY = (0.5, 2.5)  # seconds between two faults; a longer one goes on meanwhile
AT_ONCE = 8  # faults under way: more would pile up on a slow machine, and no server would ever serve
MOST_CUT = 120  # sockets, from which one fault cuts about a half


class Faults:
    """Strikes the servers of a stack and the connections of its followers, until `calm` is set."""

    def __init__(
        self,
        stack: FaultStack,
        site: Site,
        seed: int,
        kinds: frozenset[str],
        *,
        followers: Sequence[Follower],
        runs: Collection[str],
    ) -> None:
        self.stack = stack
        self.site = site
        self.kinds = kinds
        self.fate = random.Random(seed)  # noqa: S311 - no secret; not the storm's: each keeps its order
        self.followers = followers  # it grows during the storm, as does `runs`, the uuids
        self.runs = runs
        self.road: Road | None = None  # where a stranger may answer
        self.strikes: list[Strike] = []
        self.under_way: list[asyncio.Task[None]] = []
        self.calm = asyncio.Event()
        self.locks = {name: asyncio.Lock() for name in (*stack.workers, *stack.ports, "valkey", "postgres")}

    async def strike_on(self) -> None:
        """Strike until it is calm. Random numbers are drawn in order, also if a fault has to wait for its server."""
        faults = (*ROUND, *(fault for kind, fault in kinds.FAULT_OF.items() if kind in self.kinds))
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
        """Record a fault while it lasts; each server has one at a time."""
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
        draws = [self.fate.random() for _ in range(MOST_CUT)]  # always the same number of draws
        async with self.striking("cut_sockets"):
            connected = (follower for follower in self.followers if follower.connection is not None)
            for follower, draw in zip(connected, draws, strict=False):
                if draw < 0.5:
                    follower.cut()

    async def hold_row(self) -> None:
        """Let a view cancel a run, and commit that seconds later."""
        seconds, draw = self.fate.choice([1, 4]), self.fate.random()
        statuses = rows.statuses_if_up(self.stack)
        running = [uuid for uuid, status in statuses.items() if status == "running" and uuid in self.runs]
        if not running:
            return
        uuid = running[int(draw * len(running))]
        async with self.striking("hold_row", run=uuid):
            with suppress(httpx.TransportError):  # its server was killed: nothing was asked
                await self.site.client.post(f"{self.site.url()}/cancel-slowly/{uuid}/{seconds}/")

    async def stranger(self) -> None:
        """Let a stranger answer the clients whose road leads through a proxy."""
        seconds, who = self.fate.uniform(1, 5), self.fate.choice(list(STRANGERS))
        assert self.road is not None
        async with self.striking("stranger"):
            self.road.block(who)
            await self.sleep(seconds)
            self.road.open()
