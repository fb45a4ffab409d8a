"""What each implementation of the port of events does: one in this process, and the channel layer over a Valkey."""

import asyncio
import json
from uuid import uuid4

import pytest

from taskapi import events
from taskapi.events import channel_layer, hub, using
from taskapi.events.channel_layer import ChannelLayerEvents
from taskapi.events.following import Following, find_run
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo
from taskapi.protocol import Event, Report
from taskapi.workers.executor import Executor
from tests.integration.contract.guarantees import check_stream
from tests.support.events import UnreliableEvents
from tests.support.talking import TalkAgain
from tests.support.waiting import LIMIT, until


@pytest.fixture(params=[InProcessEvents, ChannelLayerEvents])
async def port(request, settings):
    """The implementation of the port that this process uses."""
    settings.CHANNEL_LAYERS = {}  # as in a project that configures no layer
    is_layer = request.param is ChannelLayerEvents
    if is_layer:
        request.getfixturevalue("valkey")
    with using(request.param()) as port:
        yield port
    if is_layer:
        await channel_layer.get_layer().flush()


def report(seq, *texts, finished=False):
    return Report(seq, seq - 1, len(texts), finished, [Event(seq, text) for text in texts])


async def heard(feed):
    async with asyncio.timeout(LIMIT):
        return await feed.receive()


# Publish, and follow


async def test_a_report_arrives_as_it_was_made(port):
    feed, uuid = await port.connect(), uuid4()
    await feed.follow(uuid)
    made = report(7, '{"a":"é\u2028"}', "two", finished=True)
    assert await events.publish(uuid, made)
    assert await heard(feed) == (uuid, made)


async def test_a_report_reaches_each_follower_of_its_run_and_nobody_else(port):
    ours, theirs = uuid4(), uuid4()
    one, two, other = [await port.connect() for _ in range(3)]
    for feed, uuid in ((one, ours), (two, ours), (other, theirs)):
        await feed.follow(uuid)
    await events.publish(ours, report(1))
    await events.publish(theirs, report(2))
    assert [await heard(feed) for feed in (one, two, other)] == [
        (ours, report(1)),
        (ours, report(1)),
        (theirs, report(2)),
    ]


async def test_a_report_that_nobody_follows_is_published_all_the_same(port):
    assert await events.publish(uuid4(), report(1))


async def test_a_thread_can_publish(port):
    feed, uuid = await port.connect(), uuid4()
    await feed.follow(uuid)
    await asyncio.to_thread(events.publish_from_thread, uuid, report(1))
    assert await heard(feed) == (uuid, report(1))


async def test_a_loop_hears_what_another_loop_publishes(port):
    feed, uuid = await port.connect(), uuid4()
    await feed.follow(uuid)

    async def publish():
        await events.publish(uuid, report(1))
        if isinstance(port, ChannelLayerEvents):
            await channel_layer.get_layer().flush()

    await asyncio.to_thread(asyncio.run, publish())
    assert await heard(feed) == (uuid, report(1))


async def test_a_feed_that_follows_a_run_again_hears_its_reports_once(port):
    feed, uuid = await port.connect(), uuid4()
    for _ in range(2):
        await feed.follow(uuid)
    for seq in (1, 2):
        await events.publish(uuid, report(seq))
    assert [await heard(feed) for _ in range(2)] == [(uuid, report(1)), (uuid, report(2))]


async def test_a_run_that_is_not_followed_any_more_is_not_heard(port):
    feed, ours, theirs = await port.connect(), uuid4(), uuid4()
    await feed.follow(ours)
    await feed.follow(theirs)
    await feed.unfollow(ours)
    await events.publish(ours, report(1))
    await events.publish(theirs, report(2))
    assert await heard(feed) == (theirs, report(2))


async def test_a_feed_that_is_closed_leaves_others_alone(port):
    closed, feed, uuid = await port.connect(), await port.connect(), uuid4()
    for each in (closed, feed):
        await each.follow(uuid)
    closed.close()
    await events.publish(uuid, report(1))
    assert await heard(feed) == (uuid, report(1))


# Listen for cancels


async def test_all_listeners_hear_which_attempt_is_to_stop(port):
    uuid = uuid4()
    listeners = [events.cancellations() for _ in range(2)]
    hearing = [asyncio.ensure_future(anext(listener)) for listener in listeners]

    async def tell():
        while not all(heard.done() for heard in hearing):  # before they listen, what is sent is lost
            await asyncio.to_thread(events.tell_workers, uuid, 3)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(LIMIT):
        await tell()
    assert [heard.result() for heard in hearing] == [(uuid, 3)] * 2
    for listener in listeners:
        await listener.aclose()


# Reports that are lost, repeated or late


FAULTS = [
    {"loss": 0.3, "repeat": 0.3, "late": 0.3, "seed": 1},
    {"loss": 0.5, "repeat": 0.5, "seed": 2},
    {"repeat": 1.0},
    {"late": 0.7, "repeat": 0.3, "seed": 3},
    {"loss": 1.0},
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("faults", FAULTS, ids=str)
async def test_a_follower_gets_everything_once_and_in_order_and_one_end(port, settings, monkeypatch, faults):
    monkeypatch.setattr(hub, "WATCH_INTERVAL", 0.02)
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    settings.TASK_API_BACKGROUND_TASKS = [TalkAgain]
    settings.TASK_API_EVENT_INTERVAL = 0.002
    info = await TaskInfo.objects.acreate(task="talk_again", max_attempts=2)
    frames = []

    async def send(text):
        frames.append(json.loads(text))

    executor = Executor(4)
    with using(UnreliableEvents(port, **faults)):
        async with Following(send) as following:
            await following.follow(info.uuid, {"type": "snapshot"}, find_run)
            for _ in range(2):
                await executor.execute(info.uuid)
            await until(lambda: frames[-1]["type"] == "finished")
    await executor.close()
    numbers = [frame["seq"] for frame in frames[1:]]
    assert numbers == sorted(set(numbers))
    said = [frame["message"] for frame in frames if frame["type"] == "message"]
    assert said == [[attempt, n] for attempt in (1, 2) for n in range(20)]
    begun = next(n for n, frame in enumerate(frames) if frame.get("attempt") == 2)
    check_stream([{**frames[0], "task": {**frames[0]["task"], "message_count": 20}}, *frames[begun:]])
