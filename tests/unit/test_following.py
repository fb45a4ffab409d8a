"""A run can be followed without a socket and without Redis: by a stream, a long poll or a test."""

import asyncio
import gc
import json
import weakref
from uuid import uuid4

import pytest

from taskapi import events
from taskapi.events import subscription
from taskapi.events.following import Following, find_run
from taskapi.events.hub import get_hub
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import Report, State, first_seq, message_event
from taskapi.tasks import Task
from taskapi.workers.executor import Executor
from tests.integration.contract.guarantees import check_stream
from tests.support.waiting import LIMIT, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("in_process", "queue")]

ONE = first_seq(1)
SNAPSHOT = {"type": "snapshot"}


@pytest.fixture
def in_process():
    with events.using(InProcessEvents()) as port:
        yield port


class Reader:
    """Follows runs; while `going` is not set, it takes no frame."""

    def __init__(self):
        self.frames = []
        self.going = asyncio.Event()
        self.going.set()

    async def send(self, text):
        await self.going.wait()
        self.frames.append(json.loads(text))

    def kinds(self):
        return [frame["type"] for frame in self.frames]


class Talk(Task):
    name = "talk"

    async def run(self):
        for n in self.track(range(10)):
            self.add_message(n)
            await asyncio.sleep(0.001)


async def running(**fields):
    return await TaskInfo.objects.acreate(
        **{"task": "talk", "status": "running", "attempt": 1, "seq": ONE + 4} | fields
    )


async def say(info, body):
    """Write a message and publish it, as an attempt does."""
    before = State(info.uuid, info.seq, 1)
    message = TaskMessage(run=info, index=info.message_count, attempt=1, seq=info.seq + 1, body=body)
    await message.asave()
    info.seq, info.message_count = info.seq + 5, info.message_count + 1
    await info.asave()
    await events.publish(info.uuid, Report.between(before, info, info.message_count, [message]))


async def test_a_run_is_followed_from_its_snapshot_to_its_end(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    info = await TaskInfo.objects.acreate(task="talk", max_attempts=1)
    reader, executor = Reader(), Executor(4)
    async with Following(reader.send) as following:
        await following.follow(info.uuid, {"type": "snapshot", "ref": "r"}, find_run)
        await executor.execute(info.uuid)
        await until(lambda: "finished" in reader.kinds())
    await executor.close()
    check_stream(reader.frames)
    assert reader.frames[0]["ref"] == "r"
    assert [frame["message"] for frame in reader.frames if frame["type"] == "message"] == list(range(10))


async def test_what_is_published_is_heard_at_once_and_not_by_looking_at_rows():
    reader, info = Reader(), await running()
    async with Following(reader.send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
        event = message_event(info.uuid, 1, ONE + 5, 0, "in no row")
        await events.publish(info.uuid, Report(ONE + 9, ONE + 4, 1, False, [event]))
        await until(lambda: reader.frames[1:])
    assert reader.frames[1]["message"] == "in no row"


async def test_who_follows_a_run_again_is_shown_it_again_and_told_nothing_twice():
    reader, info = Reader(), await running()
    async with Following(reader.send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
        await say(info, "a")
        await until(lambda: "message" in reader.kinds())
        await following.follow(info.uuid, SNAPSHOT, find_run, after=1)
        await say(info, "b")
        await until(lambda: reader.frames[-1].get("message") == "b")
    assert reader.kinds() == ["snapshot", "message", "snapshot", "message"]
    assert reader.frames[2]["task"]["messages"] == []


async def test_of_two_calls_for_a_run_at_the_same_time_the_second_follows_it_on():
    reader, info = Reader(), await running()
    async with Following(reader.send) as following:
        await asyncio.gather(*(following.follow(info.uuid, SNAPSHOT, find_run) for _ in range(2)))
        await say(info, "a")
        await until(lambda: "message" in reader.kinds())
    assert reader.kinds().count("message") == 1


async def test_a_reader_that_has_closed_its_following_is_freed_at_once():
    reader = Reader()
    reader.following = Following(reader.send)
    gone = weakref.ref(reader)
    gc.disable()
    try:
        async with reader.following:
            pass
        del reader
        assert gone() is None
    finally:
        gc.enable()


async def test_a_run_that_is_dropped_is_not_heard_and_others_are():
    reader, one, other = Reader(), await running(), await running()
    async with Following(reader.send) as following:
        for info in (one, other):
            await following.follow(info.uuid, SNAPSHOT, find_run)
        following.drop(one.uuid)
        await say(one, "a")
        await say(other, "b")
        await until(lambda: "message" in reader.kinds())
    assert [frame["message"] for frame in reader.frames[2:]] == ["b"]


async def test_a_run_that_the_reader_may_not_see_is_not_followed():
    reader, info = Reader(), await running()

    def find(uuid):
        raise PermissionError("not yours")

    async with Following(reader.send) as following:
        with pytest.raises(PermissionError):
            await following.follow(info.uuid, SNAPSHOT, find)
        assert get_hub()._followers == {}
    assert reader.frames == []


async def test_a_run_that_is_not_there_is_not_followed():
    async with Following(Reader().send) as following:
        with pytest.raises(TaskInfo.DoesNotExist):
            await following.follow(uuid4(), SNAPSHOT, find_run)
        assert get_hub()._followers == {}


async def test_nothing_is_followed_before_it_is_open():
    with pytest.raises(RuntimeError, match="async with"):
        await Following(Reader().send).follow(uuid4(), SNAPSHOT, find_run)


async def test_a_run_is_expected_before_it_is_there():
    reader = Reader()
    async with Following(reader.send) as following:
        expected = await following.expect(uuid4())
        info = await running(uuid=expected.uuid)
        await say(info, "a")  # before the first frame
        await following.start(expected, {"type": "accepted"}, await TaskInfo.objects.aget(message_count=1), after=1)
        await say(info, "b")
        await until(lambda: "message" in reader.kinds())
    assert reader.kinds() == ["accepted", "message"]
    assert reader.frames[1]["message"] == "b"


async def test_a_reader_that_waits_costs_bounded_memory_and_gets_everything_later(monkeypatch):
    monkeypatch.setattr(subscription, "MOST_REPORTS", 10)
    reader, info = Reader(), await running()
    async with Following(reader.send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
        (followed,) = get_hub()._followers[info.uuid]
        reader.going.clear()
        for n in range(50):
            await say(info, n)
            assert len(followed._reports) <= 11
        reader.going.set()
        await until(lambda: len(reader.frames) == 51)
    assert [frame["message"] for frame in reader.frames[1:]] == list(range(50))


async def test_a_run_that_has_ended_is_followed_no_longer():
    reader, info = Reader(), await running(status="succeeded")
    async with Following(reader.send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
        assert reader.kinds() == ["snapshot", "finished"]
        assert get_hub()._followers == {}


async def test_nothing_is_left_of_a_reader_that_is_gone(in_process):
    before, info = asyncio.all_tasks(), await running()
    async with Following(Reader().send) as following:
        await following.follow(info.uuid, SNAPSHOT, find_run)
        assert set(in_process._feeds) == {info.uuid}
    await until(lambda: asyncio.all_tasks() == before)
    assert not in_process._feeds


async def test_a_long_poll_is_answered_with_the_first_that_is_new():
    info = await running()

    async def poll(known):
        frames = asyncio.Queue()
        async with Following(frames.put) as following, asyncio.timeout(LIMIT):
            await following.follow(info.uuid, SNAPSHOT, find_run, after=known)
            task = json.loads(await frames.get())["task"]
            return task["messages"] or [json.loads(await frames.get())["message"]]

    waiting = asyncio.create_task(poll(0))
    await until(lambda: get_hub()._followers)
    await until(lambda: all(each._writer for each in get_hub()._followers[info.uuid]))
    assert not waiting.done()
    await say(info, "a")
    assert await waiting == ["a"]
    assert await poll(0) == ["a"]


async def test_a_stream_takes_one_frame_after_the_other():
    info = await running()

    async def stream():
        frames = asyncio.Queue(maxsize=1)  # at most one frame waits
        async with Following(frames.put) as following:
            await following.follow(info.uuid, SNAPSHOT, find_run)
            while True:
                frame = json.loads(await frames.get())
                yield frame
                if frame["type"] == "finished":
                    return

    frames = []
    async with asyncio.timeout(LIMIT):
        async for frame in stream():
            frames.append(frame)
            if len(frames) == 1:
                for n in range(5):
                    await say(info, n)
                info.status = "succeeded"
                before, info.seq = State(info.uuid, info.seq, 1), info.seq + 4
                await info.asave()
                await events.publish(info.uuid, Report.between(before, info, 5))
    assert [frame["type"] for frame in frames] == ["snapshot", *["message"] * 5, "finished"]


# In process


async def test_a_reader_that_hears_more_than_it_takes_loses_the_rest(in_process, monkeypatch):
    monkeypatch.setattr("taskapi.events.in_process.MOST_WAITING", 2)
    feed, uuid = await in_process.connect(), uuid4()
    await feed.follow(uuid)
    reports = [Report(seq, seq - 1, 0, False, []) for seq in range(5)]
    for report in reports:
        await events.publish(uuid, report)
    await asyncio.sleep(0)  # they arrive in this turn of the loop
    assert [await feed.receive() for _ in range(2)] == [(uuid, report) for report in reports[:2]]
    await events.publish(uuid, reports[4])
    assert await feed.receive() == (uuid, reports[4])


def test_a_feed_of_a_loop_that_is_closed_disturbs_nobody(in_process):
    uuid = uuid4()

    async def follow():
        await (await in_process.connect()).follow(uuid)

    asyncio.run(follow())
    events.publish_from_thread(uuid, Report(1, 0, 0, False, []))


def test_events_travel_as_before_after_the_block(in_process):
    assert events.get_events() is in_process
    with events.using(InProcessEvents()) as inner:
        assert events.get_events() is inner
    assert events.get_events() is in_process
