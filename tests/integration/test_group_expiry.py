"""A core layer forgets the members of a group after a while: to stay, they join again in time."""

import asyncio
from uuid import UUID, uuid4

import pytest
import redis

from taskapi import events
from taskapi.events import channel_layer
from taskapi.events.hub import get_hub
from taskapi.events.subscription import Subscription
from taskapi.models import TaskInfo
from taskapi.protocol import Report
from tests.support.waiting import until

EXPIRY = 4  # seconds, instead of a day


@pytest.fixture
def core_layer(valkey, settings):
    config = {"hosts": [valkey], "group_expiry": EXPIRY}
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}}
    with redis.Redis.from_url(valkey) as client:
        yield client


async def outlives_its_expiry(client: redis.Redis, group: str) -> None:
    """Wait until the group was joined again, and the first membership would have expired."""

    def joined_at() -> float:
        ((_, moment),) = client.zrange(f"asgi:group:{group}", 0, -1, withscores=True) or [(None, 0)]
        return moment

    first = await until(joined_at)
    await until(lambda: joined_at() > first + EXPIRY + 1)


async def test_workers_hear_of_cancellations_for_longer_than_a_group_lasts(core_layer):
    hearing = events.cancellations()
    heard = asyncio.ensure_future(anext(hearing))
    await outlives_its_expiry(core_layer, channel_layer.workers())
    await asyncio.to_thread(events.tell_workers, uuid := uuid4(), 3)
    async with asyncio.timeout(20):
        assert await heard == (uuid, 3)
    await hearing.aclose()
    await channel_layer.get_layer().close_pools()


@pytest.mark.django_db(transaction=True)
async def test_a_server_hears_of_a_run_for_longer_than_a_group_lasts(core_layer):
    info = await TaskInfo.objects.acreate(task="any")
    heard: asyncio.Queue[Report] = asyncio.Queue()

    class Follower(Subscription):
        def hear(self, report: Report, characters: int) -> None:
            heard.put_nowait(report)

    hub = get_hub()
    hub.open()
    await hub.add(follower := Follower(UUID(str(info.uuid)), send=None, on_end=None))
    await outlives_its_expiry(core_layer, channel_layer.group(info.uuid))
    assert await events.publish(info.uuid, Report(1, 0, 0, False, []))
    async with asyncio.timeout(20):
        assert await heard.get() == Report(1, 0, 0, False, [])
    hub.remove(follower)
    await hub.close()
    await channel_layer.get_layer().close_pools()
