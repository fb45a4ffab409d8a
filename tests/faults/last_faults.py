"""The last faults of a storm, one at a time, while nothing else is struck: so the delays are the product's own."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import rows
from tests.faults.follower import Follower
from tests.faults.promises import FINAL
from tests.faults.stack import CALM
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.faults.storm import Storm

PATIENCE = 30.0  # seconds for something that takes a moment, on a machine that has other things to do
HELD = 60  # seconds for which a row is held at most: longer than any of its neighbours is waited for


class LastFaults:
    """Strikes when the storm is over. What goes wrong is added to the storm's account."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.stack = storm.stack

    async def strike(self) -> None:
        if "transaction" in self.storm.kinds:
            await self.held_row()
        gate = self.stack.directory / "crowd"
        try:
            if "threads" in self.storm.kinds:
                await self.crowds(gate)
            await self.two_lost()
        except TimeoutError:
            self.storm.broken.append(f"runs were not executed, or not taken up, within {CALM:.0f} s")
            await asyncio.to_thread(self.stack.heal)
        finally:
            gate.touch()

    async def held_row(self) -> None:
        """Hold the row of a run until another run of the same worker has ended, which says and does as much."""
        gate, done = self.stack.directory / "neighbours", self.stack.directory / "released"
        inputs = {"steps": 6, "seconds": 0.5, "failures": 0, "gate": str(gate)}
        at: dict[str, str] = {}  # by worker: a run that it executes
        while True:
            neighbour = await self.storm.start("gated_work", **inputs)
            execution, *_ = await until(lambda uuid=neighbour: self.stack.executions(uuid), CALM)
            held = at.setdefault(self.stack.names[execution["pid"]], neighbour)
            if held != neighbour:
                break
        url = f"{self.storm.site.url()}/cancel-slowly/{held}/{HELD}/?gate={done}"
        holding = asyncio.create_task(self.storm.site.client.post(url))
        try:
            await until(lambda: rows.is_locked(self.stack, held), CALM)
            gate.touch()
            await until(lambda: rows.statuses(self.stack)[neighbour] in FINAL, PATIENCE)
        except TimeoutError:
            self.storm.broken.append(f"run {neighbour} waited for the locked row of run {held}")
        finally:
            done.touch()
            gate.touch()
            await holding

    async def crowds(self, gate: Path) -> None:
        """Keep the threads of each worker busy, and see that async runs, with their sync calls, end all the same."""
        crowded: set[str] = set()
        uuids: list[str] = []
        try:
            while crowded != set(self.stack.workers):
                uuids = [await self.storm.start("crowded_work", steps=3, seconds=0.2, failures=0, gate=str(gate))]
                execution, *_ = await until(partial(self.stack.executions, *uuids), PATIENCE)
                crowded.add(self.stack.names[execution["pid"]])
                self.storm.of_kind["threads"] += 1
            uuids = [await self.storm.start("sensitive_work", steps=2, seconds=0.1, failures=0) for _ in crowded]
            await until(lambda: all(rows.statuses(self.stack)[uuid] in FINAL for uuid in uuids), PATIENCE)
        except TimeoutError:
            self.storm.broken.append(f"one of the async runs {uuids} waited for the threads of other runs")

    async def two_lost(self) -> None:
        """Freeze a worker until its run was taken up, and kill another one: two leases expire at once.

        So in each storm one frozen worker wakes up while nothing else is struck.
        """
        at: dict[str, str] = {}  # by worker: a run that it executes
        while len(at) < 2:
            task = self.storm.random.choice(["work", "async_work"])
            uuid = await self.storm.start(task, steps=60, seconds=4, failures=0)
            self.storm.follow(Follower(self.storm.site.ws_url, uuid))
            execution, *_ = await until(lambda uuid=uuid: self.stack.executions(uuid), CALM)
            at.setdefault(self.stack.names[execution["worker"]], uuid)
        frozen, killed = at
        async with self.storm.faults.striking("freeze_worker", frozen):
            self.stack.pause(frozen)
            await self.storm.faults.kill_worker(killed)
            await until(lambda: len(self.stack.executions(at[frozen])) > 1, CALM)
            self.stack.resume(frozen)
