"""Our own channel layer publishes all that waits in one round trip; channels_redis is as our layer expects."""

import asyncio

import pytest
import redis.asyncio
from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.exceptions import RedisError

from taskapi.backends.redis import channel_layer_host
from taskapi.conf import DEFAULT_REDIS_PREFIX as PREFIX
from taskapi.events import pubsub
from taskapi.events.pubsub import PubSubLayer


@pytest.fixture
async def layer(valkey):
    layer = PubSubLayer(hosts=[channel_layer_host(valkey)], prefix=PREFIX)
    yield layer
    await layer.flush()


@pytest.fixture
async def client(valkey):
    async with redis.asyncio.Redis.from_url(valkey) as client:
        yield client


async def publish(layer, *numbers):
    return await asyncio.gather(*(layer.group_send("g", {"number": n}) for n in numbers), return_exceptions=True)


async def test_what_is_published_at_once_arrives_in_its_order_and_in_one_round_trip(layer, monkeypatch):
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    await publish(layer, 0)  # opens the connections
    batches = []
    send = pubsub._Connection._send

    async def counted(self, batch):
        batches.append(len(batch))
        await send(self, batch)

    monkeypatch.setattr(pubsub._Connection, "_send", counted)
    assert await publish(layer, *range(1, 101)) == [None] * 100
    assert [(await layer.receive(channel))["number"] for _ in range(101)] == list(range(101))
    assert batches == [100]


async def test_another_layer_of_channels_redis_hears_it(layer, valkey):
    """Servers of an earlier version use the layer of channels_redis itself."""
    theirs = RedisPubSubChannelLayer(hosts=[channel_layer_host(valkey)], prefix=PREFIX)
    channel = await theirs.new_channel()
    await theirs.group_add("g", channel)
    await publish(layer, 1)
    assert await theirs.receive(channel) == {"number": 1}
    await theirs.flush()


async def test_an_error_goes_to_everybody_who_published_and_later_ones_are_tried_anew(layer, client):
    await publish(layer, 0)
    await client.execute_command("ACL SETUSER", "default", "-publish")
    try:
        assert all(isinstance(error, RedisError) for error in await publish(layer, 1, 2))
    finally:
        await client.execute_command("ACL SETUSER", "default", "+publish")
    assert await publish(layer, 3) == [None]


async def test_what_its_sender_does_not_wait_for_any_more_is_not_published_later(layer, client):
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    await publish(layer, 0)
    assert (await layer.receive(channel))["number"] == 0
    await client.client_pause(10_000, all=False)  # commands that write wait, and publishing is one
    try:
        first = asyncio.ensure_future(publish(layer, 1))
        assert (await asyncio.wait({first}, timeout=0.1))[1], "it was sent, and the server does not answer"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await publish(layer, 2)
    finally:
        await client.client_unpause()
    assert await first == [None]
    await publish(layer, 3)
    assert [(await layer.receive(channel))["number"] for _ in range(2)] == [1, 3]
