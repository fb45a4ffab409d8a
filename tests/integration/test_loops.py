"""What belongs to an event loop goes with it."""

import asyncio
import gc
import weakref
from uuid import uuid4

import pytest

from taskapi import events
from taskapi.backends.arq import ArqQueue
from taskapi.events.hub import get_hub
from taskapi.events.subscription import Subscription
from taskapi.protocol import Report
from taskapi.store.database import in_database
from taskapi.store.ledger import WorkerLedger, get_ledger
from taskapi.store.loops import one_per_loop
from taskapi.workers.host import Host

pytestmark = pytest.mark.django_db(transaction=True)

# Not the core layer of channels_redis, which keeps the buffer of each channel that was ever received from.
LAYERS = {
    "our own": None,
    "pubsub": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"},
}


async def use_everything() -> None:
    assert await get_ledger().write(lambda: 1) == 1
    hub = get_hub()
    hub.open()
    await hub.add(subscription := Subscription(uuid4(), send=None, on_end=None))
    assert await events.publish(uuid4(), Report(1, 0, 0, False, []))
    hub.remove(subscription)
    await hub.close()
    hearing = asyncio.ensure_future(anext(events.cancellations()))
    await asyncio.sleep(0)
    hearing.cancel()
    await asyncio.wait({hearing})
    queue = ArqQueue(["default"])
    await queue.promote()
    await queue.take(0.01)
    await queue.close()
    async with Host(queues=["default"]) as host:
        await asyncio.sleep(0)
    await asyncio.to_thread(host._leases.join)
    ledger = WorkerLedger()
    assert await ledger.write(lambda: 2) == 2
    await ledger.close()


@pytest.mark.parametrize("layer", LAYERS)
def test_five_closed_loops_leave_nothing_behind(valkey, settings, layer):
    if LAYERS[layer] is not None:
        settings.CHANNEL_LAYERS = {"taskapi": LAYERS[layer] | {"CONFIG": {"hosts": [valkey]}}}
    loops = []
    for _ in range(5):
        with asyncio.Runner() as runner:
            runner.run(use_everything())
            loops.append(weakref.ref(runner.get_loop()))
        del runner
    asyncio.run(in_database(int))  # asgiref remembers the last one, until the next
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


def test_a_loop_has_one_of_each():
    async def twice() -> tuple[object, object]:
        return one_per_loop(Report), one_per_loop(Report)

    class Report:
        pass

    first, second = asyncio.run(twice())
    assert first is second
    assert asyncio.run(twice())[0] is not first
