"""All faults at random, on runs and subscribers of all kinds; and in the end each promise, on each of them.

The short form is part of the tests. `make soak` takes FAULT_SECONDS (how long faults go on), FAULT_RUNS (how many
runs there are at least) and FAULT_SEED, and goes on until it has had both.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.follower import PAUSE, Follower
from tests.faults.promises import FINAL, check
from tests.faults.stack import FaultStack
from tests.support.databases import Databases
from tests.support.stack import free_port

SECONDS = float(os.environ.get("FAULT_SECONDS") or 25)
RUNS = int(os.environ.get("FAULT_RUNS") or 50)
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(1, 10**6))
REPORT = os.environ.get("FAULT_REPORT")  # a file for the figures

OPEN_RUNS = 40  # at once: more than the workers execute, so that some wait
CALM = 120.0  # seconds after the last fault in which all runs have to end: every attempt may wait for a lease
FAULT_EVERY = (0.5, 3.0)  # seconds between two faults
POLL_INTERVAL = 0.25  # seconds between two questions of a poller
WORKERS = ("one", "two", "three")
WEBS = ("web", "web2")

pytestmark = pytest.mark.timeout(2 * SECONDS + 2 * CALM + 120)


class StormStack(FaultStack):
    """Three workers and two web servers."""

    def __init__(self, databases: Databases, directory: Path, layer: str) -> None:
        super().__init__(databases, "postgres", directory, layer)
        self.workers, self.webs = WORKERS, WEBS
        self.ports = {name: free_port() for name in WEBS}

    def start_web(self) -> None:
        for name, port in self.ports.items():
            if name not in self.processes:
                web = self._start(name, "daphne", "--port", str(port), "tests.project.asgi:application")
                web.wait_for_output("Listening on TCP address")


class Poller:
    """Follows a run over REST, as a client without WebSockets does."""

    def __init__(self, storm: "Storm", uuid: str) -> None:
        self.storm = storm
        self.uuid = uuid
        self.messages: list[Any] = []
        self.seqs: list[int] = []
        self.statuses: list[str] = []

    async def follow(self) -> None:
        while not self.statuses or self.statuses[-1] not in FINAL:
            run = (await self.storm.ask("GET", f"/tasks/{self.uuid}/?after={len(self.messages)}")).json()
            self.messages += run["messages"]
            self.seqs.append(run["seq"])
            self.statuses.append(run["status"])
            assert len(self.messages) == run["message_count"]
            await asyncio.sleep(POLL_INTERVAL)

    def check(self, run: dict[str, Any]) -> None:
        assert self.messages == run["messages"]
        assert self.seqs == sorted(self.seqs)
        assert self.statuses[-1] == run["status"]


class Storm:
    """Starts runs and followers, strikes, and checks."""

    def __init__(self, stack: StormStack, seed: int) -> None:
        self.stack = stack
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.client = httpx.AsyncClient(timeout=20)
        self.runs: dict[str, dict[str, Any]] = {}  # by uuid, what was started
        self.followers: list[Follower] = []
        self.pollers: list[Poller] = []
        self.following: list[asyncio.Task[None]] = []
        self.strikes: list[tuple[float, str]] = []
        self.kills: list[tuple[float, int]] = []  # when an attempt may have lost its process, and which
        self.began = time.time()

    # Clients

    def url(self) -> str:
        return f"http://127.0.0.1:{self.random.choice(list(self.stack.ports.values()))}"

    def ws_url(self) -> str:
        return f"{self.url().replace('http', 'ws')}/tasks/ws/"

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of whichever server gives one."""
        while True:
            try:
                answer = await self.client.request(method, self.url() + path, **options)
                if answer.status_code < 500:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(PAUSE)

    def inputs(self) -> dict[str, Any]:
        steps = self.random.randrange(1, 60)
        return {"steps": steps, "seconds": self.random.uniform(0, 4), "failures": self.random.choice([0, 0, 1, 2])}

    async def start(self) -> None:
        """Start a run over one road or the other, and let some follow it."""
        key = f"{self.random.random()}"
        task, inputs = self.random.choice(["work", "async_work", "flaky_work"]), self.inputs()
        if self.random.random() < 0.5:
            body = {"task": task, "inputs": inputs}
            answer = await self.ask("POST", "/tasks/", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code in (200, 201), answer.text
            uuid = answer.json()["uuid"]
        else:
            first = Follower(self.ws_url, task=task, inputs=inputs, idempotency_key=key)
            self.follow(first)
            await first.subscribed.wait()
            assert first.uuid is not None
            uuid = first.uuid
        self.runs[uuid] = {"task": task, **inputs}
        for _ in range(self.random.randrange(3)):
            self.follow(Follower(self.ws_url, uuid))
        if self.random.random() < 0.2:
            self.poll(uuid)
        if self.random.random() < 0.1:
            self.following.append(asyncio.create_task(self.cancel(uuid)))

    def follow(self, follower: Follower) -> None:
        self.followers.append(follower)
        self.following.append(asyncio.create_task(follower.follow(SECONDS + 2 * CALM)))

    def poll(self, uuid: str) -> None:
        poller = Poller(self, uuid)
        self.pollers.append(poller)
        self.following.append(asyncio.create_task(poller.follow()))

    async def cancel(self, uuid: str) -> None:
        await asyncio.sleep(self.random.uniform(0, 3))
        self.runs[uuid]["cancelled"] = True
        assert (await self.ask("POST", f"/tasks/{uuid}/cancel/")).status_code in (202, 409)

    async def start_many(self) -> None:
        while time.time() < self.began + SECONDS or len(self.runs) < RUNS:
            if sum(not task.done() for task in self.following) < 3 * OPEN_RUNS:
                await self.start()
            self.failed()
            await asyncio.sleep(SECONDS / RUNS / 2)

    def failed(self) -> None:
        """Raise what went wrong in the background, as soon as it has."""
        for task in (*self.following, self.striking):
            if task.done():
                task.result()

    # Faults

    async def strike_on(self) -> None:
        """Strike again and again: all faults in turn, each time in another order."""
        faults: list[Callable[[], Any]] = [
            self.kill_worker, self.kill_worker, self.kill_web, self.freeze_worker, self.stop_worker, self.flush,
            self.restart_valkey, self.restart_postgres, self.cut_sockets, self.cut_sockets,
        ]  # fmt: skip
        while True:
            for fault in self.random.sample(faults, len(faults)):
                await asyncio.sleep(self.random.uniform(*FAULT_EVERY))
                self.strikes.append((time.time() - self.began, fault.__name__))
                await fault()

    def _lost(self, name: str) -> None:
        self.kills.append((time.time(), self.stack.processes[name].popen.pid))

    async def kill_worker(self) -> None:
        name = self.random.choice(WORKERS)
        self._lost(name)
        self.stack.kill(name)
        await asyncio.to_thread(self.stack.start_worker, name=name)

    async def stop_worker(self) -> None:
        name = self.random.choice(WORKERS)
        self._lost(name)
        await asyncio.to_thread(self.stack.stop, name)
        await asyncio.to_thread(self.stack.start_worker, name=name)

    async def freeze_worker(self) -> None:
        name = self.random.choice(WORKERS)
        self._lost(name)
        self.stack.pause(name)
        await asyncio.sleep(self.random.choice([1, 5, 13]))
        self.stack.resume(name)

    async def kill_web(self) -> None:
        self.stack.kill(self.random.choice(WEBS))
        await asyncio.to_thread(self.stack.start_web)

    async def flush(self) -> None:
        self.stack.flush()

    async def restart_valkey(self) -> None:
        self.stack.stop_valkey()
        await asyncio.sleep(self.random.choice([0, 1, 5]))
        await asyncio.to_thread(self.stack.valkey.start)

    async def restart_postgres(self) -> None:
        await asyncio.to_thread(self.stack.databases.stop_postgres)
        await asyncio.sleep(self.random.choice([0, 2]))
        await asyncio.to_thread(self.stack.databases.start_postgres)

    async def cut_sockets(self) -> None:
        for follower in self.followers:
            if self.random.random() < 0.5:
                follower.cut()

    # The end

    async def run(self) -> None:
        self.striking = asyncio.create_task(self.strike_on())
        try:
            await self.start_many()
        finally:
            self.striking.cancel()
            await asyncio.gather(self.striking, return_exceptions=True)
            await asyncio.to_thread(self.stack.heal)
        await asyncio.wait_for(asyncio.gather(*self.following), CALM)

    async def check(self) -> Counter[str]:
        found = {uuid: (await self.ask("GET", f"/tasks/{uuid}/")).json() for uuid in self.runs}
        for follower in self.followers:
            assert follower.uuid is not None
            check(follower, found[follower.uuid])
        for poller in self.pollers:
            poller.check(found[poller.uuid])
        for uuid, run in found.items():
            self.check_run(run, self.runs[uuid])
        return Counter(run["status"] for run in found.values())

    def check_run(self, run: dict[str, Any], started: dict[str, Any]) -> None:
        """It has ended, as it had to, and was executed as often as it may be: once where nothing struck its worker."""
        assert run["status"] in FINAL, f"{run} is stuck"
        executions = self.stack.executions(run["uuid"])
        attempts = [line["attempt"] for line in executions]
        assert attempts == sorted(set(attempts)), f"{run['uuid']}: attempts {attempts}"
        assert len(attempts) <= 4
        raised = len(self.stack.executions(run["uuid"], "raised"))
        struck = sum(self.was_struck(line) for line in executions)
        assert run["attempt"] <= 1 + raised + struck or started.get("cancelled"), f"{run}: {executions}"
        if run["status"] == "failed":
            assert run["attempt"] == 4, run
            assert run["error"]["code"] in ("worker_lost", "exception")
        elif run["status"] == "cancelled":
            assert run["cancel_requested"]
        else:
            assert run["outputs"] == {"attempt": run["attempt"], "steps": started["steps"]}
            assert [1 for line in self.stack.executions(run["uuid"], "ended") if line["attempt"] == run["attempt"]] == [
                1
            ]

    def was_struck(self, execution: dict[str, Any]) -> bool:
        """Whether something was done to the process of an execution after that had begun."""
        return any(pid == execution["pid"] and at > execution["at"] for at, pid in self.kills)


@pytest.fixture(params=["default", "core"])
def stormed(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[StormStack]:
    with StormStack(databases, tmp_path, request.param) as stack:
        yield stack


async def test_whatever_is_killed_cut_or_restarted_each_promise_holds_for_each_run_and_subscriber(stormed, capsys):
    storm = Storm(stormed, SEED)
    try:
        await storm.run()
        statuses = await storm.check()
    finally:
        await storm.client.aclose()
        for task in storm.following:
            task.cancel()
        figures = {
            "seed": SEED,
            "servers": len(stormed.processes),
            "seconds": round(time.time() - storm.began, 1),
            "faults": Counter(name for _, name in storm.strikes),
            "runs": len(storm.runs),
            "followers": len(storm.followers),
            "connections": sum(follower.connections for follower in storm.followers),
            "events": sum(len(frames) for follower in storm.followers for frames in follower.subscriptions),
            "refusals": Counter(refusal["code"] for follower in storm.followers for refusal in follower.refusals),
            "pollers": len(storm.pollers),
            "executions": sum(len(stormed.executions(uuid)) for uuid in storm.runs),
        }
        with capsys.disabled():
            print(f"\n{json.dumps(figures)}")  # noqa: T201 - what it went through, and the seed that does it again
    if REPORT:
        with Path(REPORT).open("a") as report:  # noqa: ASYNC230 - all is over
            report.write(json.dumps(figures | {"statuses": statuses}) + "\n")
