"""No frame is larger than the server can send: what does not fit is left out and named, or follows."""

import asyncio
import json
import threading
from itertools import count
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connection, connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from taskapi import events, protocol
from taskapi.conf import settings as taskapi_settings
from taskapi.events import channel_layer, subscription
from taskapi.events import hub as hubs
from taskapi.events.hub import Hub
from taskapi.events.subscription import Subscription
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import LEAST_FRAME, Message, Report, byte_size, first_seq, fit, within
from taskapi.store.messages import PAGE_BYTES, SHOWN, read_messages
from tests.support.waiting import LIMIT as LIMIT_OF_WAITING
from tests.support.waiting import until

LIMIT = 10_000
ONE, TWO = first_seq(1), first_seq(2)
UNLIMITED = 2**40


@pytest.fixture
def limit(settings):
    settings.TASK_API_LIMITS = {"sent_frame_bytes": LIMIT}
    return LIMIT


def a_run(**fields):
    return TaskInfo(**{"task": "any", "status": "running", "attempt": 1, "seq": ONE + 4} | fields)


def texts(size):
    return st.sampled_from(["x", "é", "😀", "\0", '"', "\ud83d"]).flatmap(
        lambda letter: st.integers(0, size).map(lambda n: letter * n)
    )


# Frames


def test_a_frame_of_the_limit_is_sent_as_it_is_and_one_byte_more_is_too_much():
    event = protocol.message_event(uuid4(), 1, ONE, 0, "é" * 3000).text
    size = len(event.encode())
    assert within(event, size) == event
    assert json.loads(within(event, size - 1))["omitted"] is True


@given(inputs=texts(8000), outputs=texts(8000), error=texts(8000), bodies=st.lists(texts(3000), max_size=8))
def test_no_frame_that_shows_a_run_is_over_the_limit_whatever_is_in_it(inputs, outputs, error, bodies):
    info = a_run(inputs={"a": inputs}, outputs={"b": outputs}, error={"message": error}, message_count=len(bodies))
    rows = [Message(n, 1, ONE + n + 1, body) for n, body in enumerate(bodies)]
    info.seq = ONE + len(bodies) + 10
    text, known, seq = protocol.snapshot({"type": "snapshot", "ref": "r"}, info, 0, rows, LIMIT)
    assert byte_size(text) <= LIMIT
    task = json.loads(text)["task"]
    assert task["messages"] == bodies[:known]
    assert task["seq"] == seq
    assert seq == (info.seq if known == len(bodies) else ONE + known)
    left_out = task.get("omitted", [])
    assert set(protocol.represent(info, [])) - set(task) == set(left_out)
    assert (task["status"], task["attempt"]) == ("running", 1)
    assert byte_size(within(protocol.finished_event(info).text, LIMIT)) <= LIMIT


@given(detail=texts(20_000))
def test_no_refusal_is_over_the_limit_whatever_it_echoes(detail):
    frame = {"type": "error", "ref": "r", "code": "invalid_inputs", "detail": {"inputs": {"a": [detail]}}}
    text = fit(frame, LIMIT)[1]
    assert byte_size(text) <= LIMIT
    if byte_size(protocol.encode(frame)) > LIMIT:
        said = json.loads(text)
        assert (said["code"], said["omitted"], said["ref"]) == ("invalid_inputs", ["detail"], "r")
        assert "REST" in said["detail"]


@pytest.mark.parametrize(
    ("sizes", "omitted"),
    [
        ((1000, 1000, 1000), None),
        ((6000, 6000, 0), ["inputs"]),
        ((100, 12_000, 0), ["outputs"]),
        ((100, 100, 12_000), ["error"]),
        ((11_000, 12_000, 0), ["inputs", "outputs"]),
        ((100, 11_000, 11_000), ["outputs", "error"]),
        ((11_000, 11_000, 11_000), ["inputs", "outputs", "error"]),
    ],
)
def test_as_little_as_possible_is_left_out_of_a_representation(sizes, omitted):
    inputs, outputs, error = ("x" * size for size in sizes)
    info = a_run(inputs={"a": inputs}, outputs={"b": outputs}, error={"message": error}, status="succeeded")
    task = fit({"type": "snapshot", "ref": "r", "task": protocol.represent(info, [])}, LIMIT)[0]["task"]
    assert task.get("omitted") == omitted
    assert not set(omitted or []) & set(task)


def test_what_was_left_out_elsewhere_stays_named():
    info = a_run(outputs={"b": "x" * 12_000}, error={"message": "x" * 6000})
    once = within(protocol.finished_event(info).text, LIMIT)
    assert json.loads(within(once, LEAST_FRAME))["task"]["omitted"] == ["outputs", "error"]


def test_without_all_that_can_be_left_out_every_frame_fits_the_least_limit():
    info = a_run(task="😀" * 255, inputs={"a": "x" * 9000}, message_count=1)
    rows = [Message(0, 1, ONE + 1, "\ud83d" * 4000)]
    first = protocol.snapshot({"type": "snapshot", "ref": "\ud83d" * 64}, info, 0, rows, LEAST_FRAME)
    assert byte_size(first.text) <= LEAST_FRAME
    assert first.known == 0


def test_a_first_frame_of_many_messages_has_the_first_of_them_and_not_too_many_bytes():
    rows = [Message(n, 1, ONE + n, "line " * 20) for n in range(12_000)]
    info = a_run(message_count=len(rows), seq=TWO)
    text, known, seq = protocol.snapshot({"type": "snapshot"}, info, 0, rows, 2**20)
    assert 0 < known < 12_000
    assert len(text) <= protocol.SHOWN_BYTES + 1000
    assert seq == rows[known - 1].seq


# Reading messages

pytestmark = pytest.mark.django_db(transaction=True)


def recorded(bodies, **fields):
    """A run with these messages in its row."""
    fields = {"task": "any", "status": "running", "attempt": 1, "message_count": len(bodies)} | fields
    info = TaskInfo.objects.create(**{"seq": ONE + len(bodies) + 4} | fields)
    TaskMessage.objects.bulk_create(
        TaskMessage(run=info, index=n, attempt=1, seq=ONE + n + 1, body=body) for n, body in enumerate(bodies)
    )
    return info


def test_messages_are_read_in_pages_of_so_many_and_of_so_many_bytes():
    info = recorded(["x"] * 60 + ["y" * 100_000] * 5 + ["z"])
    assert [message.body for message in read_messages(info, 3, 10)] == ["x"] * 10
    assert [len(message.body) for message in read_messages(info, 59)] == [1, 100_000, 100_000]
    assert [len(message.body) for message in read_messages(info, 63)] == [100_000, 100_000, 1]
    assert read_messages(info, 66) == []


def test_a_message_larger_than_a_page_is_read_by_itself_and_one_that_no_frame_holds_is_not_read(settings):
    settings.TASK_API_LIMITS = {"sent_frame_bytes": 2**20}
    info = recorded(["x" * 400_000, "y" * 4_000_000, None, 1])
    (first,) = read_messages(info, 0)
    assert len(first.body) == 400_000
    with CaptureQueriesContext(
        connection,
    ) as queries:
        (second,) = read_messages(info, 1)
    assert second.body is protocol.OMITTED
    assert (second.index, second.seq) == (1, ONE + 2)
    assert "body" not in queries[-1]["sql"]
    assert [message.body for message in read_messages(info, 2)] == [None, 1]


# Followers


class Follower:
    def __init__(self, info):
        self.frames, self.going = [], asyncio.Event()
        self.going.set()
        self.subscription = Subscription(info.uuid, self.send, lambda subscription: None)

    async def send(self, text):
        await self.going.wait()
        assert byte_size(text) <= UNLIMITED
        self.frames.append(json.loads(text))

    def hear(self, report):
        self.subscription.hear(report, report.characters)

    async def start(self, after=0):
        info = await TaskInfo.objects.aget(uuid=self.subscription.uuid)
        messages = await sync_to_async(read_messages)(info, after, SHOWN)
        limit = taskapi_settings.sent_frame_bytes
        await self.subscription.start(info, protocol.snapshot({"type": "snapshot"}, info, after, messages, limit))
        return self


def all_messages(frames, after=0):
    """The messages that a client knows after these frames, by their index."""
    known = list(frames[0]["task"]["messages"])
    for frame in frames[1:]:
        if frame["type"] == "message":
            assert frame["index"] == after + len(known)
            known.append(frame.get("message", "omitted"))
    return known


def check_numbers(frames):
    numbers = [frames[0]["task"]["seq"], *(frame["seq"] for frame in frames[1:])]
    assert numbers == sorted(set(numbers))


async def test_messages_that_the_first_frame_has_no_room_for_follow_before_the_end(limit):
    bodies = [f"line {n} of many" for n in range(2000)]
    info = await sync_to_async(recorded)(bodies, status="succeeded", outputs={"a": 1})
    follower = await Follower(info).start(after=5)
    await until(lambda: follower.subscription.ended)
    assert 0 < len(follower.frames[0]["task"]["messages"]) < 1000
    assert follower.frames[0]["task"]["message_count"] == 2000
    assert all_messages(follower.frames, 5) == bodies[5:]
    check_numbers(follower.frames)
    assert [frame["type"] for frame in follower.frames].index("finished") == len(follower.frames) - 1


async def test_what_happens_meanwhile_follows_the_messages_that_were_there_before(limit):
    bodies = ["x" * 900] * 40
    info = await sync_to_async(recorded)(bodies)
    follower = Follower(info)
    follower.hear(Report(ONE + 48, ONE + 44, 40, False, [protocol.progress_event(info.uuid, 1, ONE + 47, 7, 9)]))
    await follower.start()
    await until(lambda: follower.frames[-1]["type"] == "progress")
    assert all_messages(follower.frames) == bodies
    check_numbers(follower.frames)


@pytest.mark.parametrize("status", ["running", "succeeded"])
async def test_a_frame_with_messages_of_an_earlier_attempt_shows_that_attempt_and_what_followed_is_told(limit, status):
    outputs = {"a": "x" * 20_000} if status == "succeeded" else None
    info = await sync_to_async(recorded)(["x" * 900] * 40, attempt=2, status=status, progress=5, outputs=outputs)
    second = TaskMessage.objects.filter(run=info, index__gte=30)
    await second.aupdate(attempt=2, seq=F("seq") + TWO - ONE)
    await TaskInfo.objects.filter(pk=info.pk).aupdate(seq=TWO + 60)
    follower = await Follower(info).start()
    await until(lambda: follower.subscription.seq == TWO + 60 or follower.subscription.ended)
    task = follower.frames[0]["task"]
    assert (task["status"], task["attempt"], task["progress"], task["outputs"]) == ("running", 1, None, None)
    assert "omitted" not in task
    assert len(all_messages(follower.frames)) == 40
    check_numbers(follower.frames)
    attempts = [frame["attempt"] for frame in follower.frames[1:]]
    assert attempts == sorted(attempts)
    others = [frame["type"] for frame in follower.frames[1:] if frame["type"] != "message"]
    assert others == ["status", "progress", *(["finished"] if status == "succeeded" else [])]


async def test_a_database_that_is_away_while_they_follow_costs_none_of_them(limit, monkeypatch):
    bodies = ["x" * 900] * 300
    info = await sync_to_async(recorded)(bodies)
    usual, calls = subscription.read_messages, count()
    monkeypatch.setattr(subscription, "read_messages", lambda *args: usual(*args) if next(calls) % 2 else 1 / 0)
    follower = await Follower(info).start()

    def everything():
        follower.subscription.catch_up()  # as the watch does
        return len(all_messages(follower.frames)) == 300

    await until(everything)
    assert all_messages(follower.frames) == bodies
    check_numbers(follower.frames)


async def test_a_follower_of_a_run_that_is_deleted_meanwhile_is_told_so(limit, monkeypatch):
    info = await sync_to_async(recorded)(["x" * 900] * 40)
    monkeypatch.setattr(subscription, "read_messages", lambda *args: [])  # deleted while the first frame was sent
    follower = Follower(info)
    messages = await sync_to_async(read_messages)(info, 0, SHOWN)
    first = protocol.snapshot({"type": "snapshot"}, info, 0, messages, LIMIT)
    await follower.subscription.start(info, first)
    await until(lambda: follower.subscription.ended)
    assert follower.frames[-1]["code"] == "not_found"


async def test_a_message_that_does_not_fit_keeps_its_place(settings):
    settings.TASK_API_LIMITS = {"sent_frame_bytes": LEAST_FRAME}
    info = await sync_to_async(recorded)(["a", "x" * 5000, "b", "x" * 50_000, "c"], status="succeeded")
    frames = []

    async def send(text):
        frames.append(json.loads(within(text, LEAST_FRAME)))  # as the consumer does

    follower = Follower(info)
    follower.subscription._send = send
    await follower.start()
    await until(lambda: follower.subscription.ended)
    assert all_messages(frames) == ["a", "omitted", "b", "omitted", "c"]
    check_numbers(frames)


async def test_a_million_messages_are_not_in_memory_at_once(limit, monkeypatch):
    """A thousand in this test: it counts how many are read at once."""
    info = await sync_to_async(recorded)(["x" * 2000] * 1000, status="succeeded")
    usual, pages = subscription.read_messages, []
    monkeypatch.setattr(subscription, "read_messages", lambda *args: pages.append(found := usual(*args)) or found)
    follower = await Follower(info).start()
    await until(lambda: follower.subscription.ended)
    assert len(all_messages(follower.frames)) == 1000
    assert max(sum(len(message.body) for message in page) for page in pages) <= PAGE_BYTES


# A follower that does not keep up (row 14)


def said(seq, since, text="x"):
    return Report(seq, since, 0, False, [protocol.Event(seq, protocol.encode({"type": "said", "seq": seq, "x": text}))])


@pytest.mark.parametrize(("reports", "text"), [(50_000, "x"), (200, "x" * 100_000)])
async def test_reports_for_a_follower_that_is_stuck_are_forgotten_and_the_row_is_read(reports, text):
    info = await sync_to_async(recorded)([])
    follower = await Follower(info).start()
    follower.going.clear()
    for n in range(reports):
        follower.hear(said(ONE + 5 + n, ONE + 4 + n, text))
        if n % 100 == 0:
            await asyncio.sleep(0)
        assert len(follower.subscription._reports) <= subscription.MOST_REPORTS
        assert follower.subscription._characters <= subscription.MOST_CHARACTERS + 2 * len(text) + 100
    end = {"status": "succeeded", "seq": ONE + 5 + reports, "outputs": {"a": 1}}
    await TaskInfo.objects.filter(pk=info.pk).aupdate(**end)
    follower.going.set()
    follower.subscription.catch_up()
    await until(lambda: follower.subscription.ended)
    check_numbers(follower.frames)
    assert follower.frames[-1]["task"]["outputs"] == {"a": 1}


async def test_a_report_that_is_forgotten_while_the_row_is_read_for_it_is_told_from_the_row(monkeypatch):
    info = await sync_to_async(recorded)([], seq=ONE + 4)
    follower = await Follower(info).start()
    usual, going, reads = subscription._read_changes, threading.Event(), []

    def read(uuid, known):
        found = usual(uuid, known)
        reads.append(found)
        assert going.wait(LIMIT_OF_WAITING)
        return found

    monkeypatch.setattr(subscription, "_read_changes", read)
    follower.hear(said(ONE + 20, ONE + 19))  # shows a gap
    await until(lambda: reads)
    for n in range(subscription.MOST_REPORTS + 1):
        follower.hear(said(ONE + 21 + n, ONE + 20 + n))

    def end():
        TaskInfo.objects.filter(pk=info.pk).update(status="failed", seq=ONE + 5000)
        connections.close_all()

    await asyncio.to_thread(end)
    going.set()
    await until(lambda: follower.subscription.ended)
    check_numbers(follower.frames)


@pytest.mark.usefixtures("memory_layer")
async def test_the_watch_looks_at_many_runs_in_pages(monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(hubs, "WATCH_PAGE", 10)
    look, pages = hubs._read_rows, []
    monkeypatch.setattr(hubs, "_read_rows", lambda uuids: pages.append(len(uuids)) or look(uuids))
    hub = Hub()
    hub.open()
    followers = []
    try:
        for _ in range(25):
            info = await sync_to_async(recorded)([])
            followers.append(await Follower(info).start())
            await hub.add(followers[-1].subscription)
        pages.clear()
        await until(lambda: len(pages) > 6)
        assert max(pages) == 10
        await TaskInfo.objects.all().aupdate(status="succeeded", seq=ONE + 50)
        await until(lambda: all(follower.subscription.ended for follower in followers))
    finally:
        for follower in followers:
            hub.remove(follower.subscription)
        await hub.close()


# Publishers


@pytest.mark.usefixtures("memory_layer")
async def test_what_does_not_fit_is_not_published_and_not_passed_on_whatever_others_publish(limit, settings):
    info = await sync_to_async(recorded)([], status="succeeded", outputs={"a": "x" * 20_000}, seq=ONE + 20)
    report = Report(ONE + 20, ONE + 4, 0, True, [protocol.finished_event(info)])
    layer = get_channel_layer("taskapi")
    channel = await layer.new_channel()
    await layer.group_add(channel_layer.group(info.uuid), channel)
    await events.publish(info.uuid, report)
    _, published = channel_layer.read(await layer.receive(channel))
    assert json.loads(published.events[0].text)["task"]["omitted"] == ["outputs"]

    hub, heard = Hub(), []
    subscription = Subscription(info.uuid, lambda text: None, lambda subscription: None)
    subscription.hear = lambda report, characters: heard.append(report)
    hub._followers[info.uuid] = {subscription}
    settings.TASK_API_LIMITS = {"sent_frame_bytes": 100_000}  # the worker has another limit
    message = channel_layer.message_of(info.uuid, report)
    settings.TASK_API_LIMITS = {"sent_frame_bytes": limit}
    hub._take(*channel_layer.read(message))
    assert byte_size(heard[0].events[0].text) <= limit
    assert heard[0].finished
