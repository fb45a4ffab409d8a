"""Even if the channel layer loses events, a follower gets every message once and in order, and one end."""

import asyncio
import json
import random
import threading
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from taskapi import events, protocol
from taskapi.conf import settings
from taskapi.consumers.tasks import TaskConsumer
from taskapi.events import channel_layer, subscription
from taskapi.events import hub as hubs
from taskapi.events.hub import Hub, get_hub
from taskapi.events.subscription import Subscription
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import SEQ_SPAN, Event, Report, first_seq
from taskapi.store.database import in_database
from taskapi.store.messages import SHOWN, read_messages
from taskapi.tasks import Task
from taskapi.workers.executor import Executor
from tests.integration.contract.guarantees import check_stream
from tests.support.talking import TalkAgain
from tests.support.waiting import LIMIT, until

pytestmark = pytest.mark.django_db(transaction=True)

ONE, TWO = first_seq(1), first_seq(2)


class Follower:
    """A follower of a run: `frames` is what it was sent."""

    def __init__(self, info, on_end=lambda subscription: None):
        self.frames = []
        self.subscription = Subscription(info.uuid, self.send, on_end)

    async def send(self, text):
        self.frames.append(json.loads(text))

    async def start(self, after=0):
        """Show the run as its row is now, as the consumer does."""
        info = await TaskInfo.objects.aget(uuid=self.subscription.uuid)
        messages = await sync_to_async(read_messages)(info, after, SHOWN)
        snapshot = protocol.snapshot({"type": "snapshot"}, info, after, messages, settings.sent_frame_bytes)
        await self.subscription.start(info, snapshot)
        return self

    def hear(self, *reports):
        for heard in reports:
            self.subscription.hear(heard, heard.characters)

    def told(self):
        """The kind and the value of each event so far."""
        return [(frame["type"], frame[SAYS[frame["type"]]]) for frame in self.frames[1:]]

    async def quiet(self):
        """Wait until the writer has nothing left to do: it has ended, or waits to be woken."""
        writer, woken = self.subscription._writer, self.subscription._woken
        await until(lambda: writer.done() or (woken._waiters and not woken.is_set()))

    @property
    def ended(self):
        return self.subscription.ended


class FlakyFollower(Follower):
    """Some of what is sent does not get through; the first frame does."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.random = random.Random(0)  # noqa: S311 - a test has to fail the same way twice

    async def send(self, text):
        if self.frames and self.random.random() < 0.3:
            raise ConnectionError("not now")
        await super().send(text)


SAYS = {
    "status": "status",
    "target": "target",
    "progress": "progress",
    "message": "message",
    "finished": "status",
    "error": "code",
    "said": "said",
}


async def a_run(**fields):
    return await TaskInfo.objects.acreate(task="any", **fields)


async def change(info, *messages, **fields):
    """Write what a worker would write, and publish nothing."""
    count = await info.log.acount()
    for n, (seq, body) in enumerate(messages, count):
        await TaskMessage.objects.acreate(run=info, index=n, attempt=seq // SEQ_SPAN, seq=seq, body=body)
    await TaskInfo.objects.filter(pk=info.pk).aupdate(message_count=count + len(messages), **fields)


def report(*told, since=0, before=0):
    """A report as a worker would publish it. Words that begin with "m" count as messages, after `before` others."""
    made = [Event(seq, protocol.encode({"type": "said", "seq": seq, "said": said})) for seq, said in told]
    count = before + sum(said.startswith("m") for _, said in told)
    return Report(told[-1][0], since, count, any(said == "end" for _, said in told), made)


def said(follower):
    return [frame.get("said") for frame in follower.frames[1:]]


async def heard_up_to(word, *followers):
    """Wait until the followers have got the word: they have then got all that was sent before it, too."""
    await until(lambda: all(word in said(follower) for follower in followers))


class PausedReads:
    """Reads of rows that wait until the test lets them go on."""

    def __init__(self, read):
        self.read = read
        self.count = 0
        self.going = threading.Event()

    def __call__(self, *args):
        self.count += 1
        assert self.going.wait(LIMIT)
        return self.read(*args)


@pytest.fixture
def paused(monkeypatch):
    paused = PausedReads(subscription._read_changes)
    monkeypatch.setattr(subscription, "_read_changes", paused)
    yield paused
    paused.going.set()


# One follower


async def test_a_follower_sees_the_run_as_it_is_and_then_what_happens():
    follower = await Follower(await a_run(status="running", seq=10)).start()
    follower.hear(report((11, "m0"), (14, "on")), report((18, "end"), since=14))
    await until(lambda: follower.ended)
    assert follower.frames[0]["task"]["seq"] == 10
    assert said(follower) == ["m0", "on", "end"]


async def test_what_the_row_has_shown_already_is_not_told():
    follower = await Follower(await a_run(status="running", seq=10)).start()
    follower.hear(report((9, "old"), (10, "old"), (11, "new")), report((10, "old"), (11, "old")), report((12, "newer")))
    await heard_up_to("newer", follower)
    assert said(follower) == ["new", "newer"]


async def test_reports_that_come_before_the_row_is_read_wait_for_it():
    info = await a_run(status="running", seq=10)
    follower = Follower(info)
    follower.hear(report((10, "old")), report((11, "new")))
    assert follower.frames == []
    await follower.start()
    await heard_up_to("new", follower)
    assert said(follower) == ["new"]


async def test_a_run_that_has_ended_is_shown_and_finished():
    follower = await Follower(await a_run(status="succeeded", seq=10, outputs={"a": 1})).start()
    assert follower.told() == [("finished", "succeeded")]
    assert follower.frames[1]["task"]["outputs"] == {"a": 1}
    assert follower.ended


async def test_after_the_end_nothing_is_told_and_it_is_said_that_it_is_the_end():
    ends = []
    follower = await Follower(await a_run(status="running", seq=10), ends.append).start()
    follower.hear(report((11, "end")), report((12, "more")))
    await until(lambda: ends)
    follower.hear(report((13, "more")))
    follower.subscription.catch_up()
    await until(follower.subscription._writer.done)
    assert said(follower) == ["end"]
    assert ends == [follower.subscription]


async def test_a_report_that_shows_a_gap_is_told_from_the_row_with_all_that_was_missed():
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "missed"), (ONE + 10, "shown"), **TALKING | {"seq": ONE + 14})
    follower.hear(report((ONE + 10, "m"), (ONE + 14, "on"), since=ONE + 9))
    await until(lambda: len(follower.told()) == 4)
    assert follower.told() == [("message", "missed"), ("message", "shown"), ("target", 9), ("progress", 3)]
    assert follower.subscription.seq == ONE + 14


async def test_an_end_that_shows_a_gap_is_told_from_the_row():
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "missed"), **DONE)
    follower.hear(report((DONE["seq"], "end"), since=ONE + 16))
    await until(lambda: follower.ended)
    assert follower.told() == [("message", "missed"), ("target", 9), ("progress", 9), ("finished", "succeeded")]


async def test_a_look_that_is_asked_for_while_the_row_is_read_is_not_forgotten(monkeypatch):
    loop, usual, late = asyncio.get_running_loop(), subscription._read_changes, iter(["late"])
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()

    def read(*args):
        found = usual(*args)
        for message in late:  # written after the row was read, with a request to read it again
            TaskMessage.objects.create(run=info, index=0, attempt=1, seq=ONE + 5, body=message)
            TaskInfo.objects.filter(pk=info.pk).update(message_count=1, seq=ONE + 9)
            loop.call_soon_threadsafe(follower.subscription.catch_up)
        return found

    monkeypatch.setattr(subscription, "_read_changes", read)
    follower.subscription.catch_up()
    await until(follower.told)
    assert follower.told() == [("message", "late")]
    follower.subscription.stop()


async def test_messages_that_a_follower_has_heard_are_not_read_again(monkeypatch):
    usual, read = subscription._read_changes, []

    def reads(*args):
        info, messages = usual(*args)
        read.append([message.body for message in messages])
        return info, messages

    monkeypatch.setattr(subscription, "_read_changes", reads)
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "m0"), (ONE + 6, "m1"), seq=ONE + 10)
    follower.hear(report((ONE + 5, "m0"), (ONE + 6, "m1"), (ONE + 10, "on"), since=ONE + 4))
    await heard_up_to("on", follower)
    follower.subscription.catch_up()
    await until(lambda: read)
    assert read == [[]]
    follower.subscription.stop()


async def test_reports_that_come_while_the_row_is_read_wait_their_turn(paused):
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), seq=ONE + 9)
    follower.subscription.catch_up()  # reads the row
    await until(lambda: paused.count)
    follower.hear(
        report((ONE + 9, "m old")), report((ONE + 13, "m"), since=ONE + 9), report((ONE + 17, "end"), since=ONE + 13)
    )
    assert follower.told() == []
    paused.going.set()
    await until(lambda: follower.ended)
    assert follower.told() == [("message", "a"), ("said", "m"), ("said", "end")]


async def test_messages_that_a_follower_knows_are_not_told_again():
    info = await a_run(status="running", attempt=1, seq=ONE + 10)
    await change(info, (ONE + 1, "a"), (ONE + 2, "b"))
    follower = await Follower(info).start(after=1)
    assert follower.frames[0]["task"]["messages"] == ["b"]
    await change(info, (ONE + 11, "c"), seq=ONE + 15)
    follower.subscription.catch_up()
    await until(follower.told)
    assert follower.told() == [("message", "c")]


async def test_a_report_that_was_overtaken_is_told_once():
    """Two hosts whose clocks differ, on a layer that orders by the sender's clock."""
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "first"), (ONE + 10, "second"), seq=ONE + 14)
    follower.hear(report((ONE + 14, "m second"), since=ONE + 9), report((ONE + 9, "m first"), since=ONE + 4))
    follower.hear(report((ONE + 18, "third"), since=ONE + 14))
    await heard_up_to("third", follower)
    assert follower.told() == [("message", "first"), ("message", "second"), ("said", "third")]


async def test_what_the_row_does_not_say_is_looked_for_once(paused):
    """It does not happen, because rows are written first. If it did, the row should not be read again and again."""
    paused.going.set()
    follower = await Follower(await a_run(status="running", attempt=1, seq=ONE + 10)).start()
    follower.hear(report((ONE + 30, "more"), since=ONE + 20), report((ONE + 14, "on"), since=ONE + 10))
    await heard_up_to("on", follower)
    assert said(follower) == ["on"]
    assert paused.count == 1


# What only the row shows

RUNNING = {"status": "running", "attempt": 1, "seq": ONE + 4}
TALKING = {"status": "running", "attempt": 1, "seq": ONE + 10, "target": 9, "progress": 3}
HANDED_BACK = TALKING | {"status": "pending", "seq": ONE + 14}
AGAIN = {"status": "running", "attempt": 2, "seq": TWO + 4, "target": None, "progress": None}
CANCELLED_BEFORE = {"status": "cancelled", "seq": ONE - 1}
CANCELLED = HANDED_BACK | {"status": "cancelled", "seq": TWO - 1}
DONE = TALKING | {"status": "succeeded", "seq": ONE + 20, "progress": 9}
BEGUN = ("status", "running")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        ({}, RUNNING, [BEGUN]),
        ({}, TALKING, [BEGUN, ("target", 9), ("progress", 3)]),
        ({}, DONE, [BEGUN, ("target", 9), ("progress", 9), ("finished", "succeeded")]),
        ({}, CANCELLED_BEFORE, [("finished", "cancelled")]),
        (RUNNING, RUNNING, []),
        (RUNNING, TALKING, [("target", 9), ("progress", 3)]),
        (TALKING, TALKING | {"seq": ONE + 14, "progress": 4}, [("target", 9), ("progress", 4)]),
        (TALKING, HANDED_BACK, [("target", 9), ("progress", 3), ("status", "pending")]),
        (TALKING, AGAIN, [BEGUN]),
        (HANDED_BACK, AGAIN, [BEGUN]),
        (TALKING, AGAIN | {"seq": TWO + 8, "progress": 1}, [BEGUN, ("progress", 1)]),
        (TALKING, DONE, [("target", 9), ("progress", 9), ("finished", "succeeded")]),
        (RUNNING, RUNNING | {"status": "failed", "seq": ONE + 8}, [("finished", "failed")]),
        (HANDED_BACK, CANCELLED, [("target", 9), ("progress", 3), ("finished", "cancelled")]),
    ],
)
async def test_a_follower_that_missed_everything_is_told_what_the_row_says(before, after, told):
    info = await a_run(**before)
    follower = await Follower(info).start()
    await change(info, **after)
    follower.subscription.catch_up()
    await follower.quiet()
    assert follower.told() == told
    numbers = [follower.frames[0]["task"]["seq"], *(frame["seq"] for frame in follower.frames[1:])]
    assert numbers == sorted(set(numbers))
    if not follower.ended:
        follower.subscription.catch_up()
        follower.hear(report((10 * ONE, "on")))
        await heard_up_to("on", follower)
        assert follower.told() == [*told, ("said", "on")], "only once"


async def test_what_a_follower_has_heard_is_not_told_again_from_the_row():
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    events_told = [
        protocol.target_event(info.uuid, 1, ONE + 8, 9),
        protocol.progress_event(info.uuid, 1, ONE + 9, 3, 9),
    ]
    follower.hear(Report(ONE + 10, ONE + 4, 0, False, events_told))
    await change(info, **TALKING)
    follower.subscription.catch_up()
    follower.hear(report((ONE + 14, "on"), since=ONE + 10))
    await heard_up_to("on", follower)
    assert follower.told() == [("target", 9), ("progress", 3), ("said", "on")]


async def test_of_reports_in_one_a_follower_is_told_what_it_does_not_know():
    info = await a_run(status="running", attempt=1, seq=ONE + 4)
    await change(info, (ONE + 5, "a"), seq=ONE + 9)
    follower = await Follower(info).start()
    first, second = report((ONE + 5, "m a"), since=ONE + 4), report((ONE + 10, "m b"), since=ONE + 9, before=1)
    follower.hear(first._replace(seq=ONE + 9).then(second._replace(seq=ONE + 14)))
    await until(follower.told)
    assert follower.told() == [("said", "m b")]
    await change(info, (ONE + 10, "b"), (ONE + 15, "c"), seq=ONE + 19)
    follower.subscription.catch_up()
    await until(lambda: len(follower.told()) > 1)
    assert follower.told()[1:] == [("message", "c")], "both messages are counted, and each once"


async def test_after_catching_up_the_reports_go_on_from_the_row():
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), **TALKING)
    follower.subscription.catch_up()
    follower.hear(report((ONE + 5, "m0"), (ONE + 10, "old")))
    follower.hear(report((ONE + 11, "m1"), (ONE + 15, "end"), since=ONE + 10))
    await until(lambda: follower.ended)
    assert [word for word in said(follower) if word] == ["m1", "end"]


@pytest.mark.parametrize("noticed_by", ["the row", "a report"])
async def test_a_follower_of_a_run_that_is_deleted_is_told_so_and_no_more(noticed_by):
    info, ends = await a_run(**RUNNING), []
    follower = await Follower(info, ends.append).start()
    await TaskInfo.objects.all().adelete()
    if noticed_by == "the row":
        follower.subscription.catch_up()
    follower.hear(report((ONE + 20, "on"), since=ONE + 16), report((ONE + 24, "on")))
    await until(lambda: ends)
    assert follower.ended
    gone = {"type": "error", "uuid": str(info.uuid), "code": "not_found", "detail": "Not found."}
    assert follower.frames[1:] == [gone]


async def test_nothing_of_an_attempt_is_told_before_its_beginning():
    info = await a_run()
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), (ONE + 6, "b"), (TWO + 5, "c"), **AGAIN | {"seq": TWO + 9, "progress": 3})
    follower.subscription.catch_up()
    await follower.quiet()
    assert follower.told() == [BEGUN, ("message", "a"), ("message", "b"), BEGUN, ("message", "c"), ("progress", 3)]
    assert [frame["attempt"] for frame in follower.frames[1:]] == [1, 1, 1, 2, 2, 2]
    assert [frame["seq"] for frame in follower.frames[1:6]] == [ONE + 1, ONE + 5, ONE + 6, TWO + 1, TWO + 5]


async def test_a_row_that_cannot_be_read_now_is_read_with_the_next_report(monkeypatch, caplog):
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), seq=ONE + 9)
    with monkeypatch.context() as patch:
        patch.setattr(subscription, "_read_changes", lambda uuid, known: 1 / 0)
        follower.subscription.catch_up()
        await until(lambda: "could not be told" in caplog.text)
    follower.hear(report((ONE + 13, "on"), since=ONE + 9))
    await heard_up_to("on", follower)
    assert follower.told() == [("message", "a"), ("said", "on")]


# A follower that is stopped


async def test_a_follower_that_is_stopped_is_told_nothing_more():
    ends = []
    follower = await Follower(await a_run(**RUNNING), ends.append).start()
    follower.hear(report((ONE + 9, "on")))
    follower.subscription.catch_up()
    follower.subscription.stop()
    follower.hear(report((ONE + 13, "on")))
    await until(follower.subscription._writer.done)
    assert follower.told() == []
    assert ends == [], "the code that stopped it needs no notice"


async def test_a_follower_that_is_stopped_while_the_row_is_read_is_told_nothing_of_it(paused):
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), **DONE)
    follower.subscription.catch_up()
    await until(lambda: paused.count)
    follower.subscription.stop()
    paused.going.set()
    await until(follower.subscription._writer.done)
    await in_database(lambda: None)  # the read has ended, too
    assert follower.told() == []


async def test_a_follower_that_is_stopped_during_a_send_is_sent_nothing_after_it(monkeypatch):
    follower = await Follower(await a_run(**RUNNING)).start()
    sending, sent = [], asyncio.Event()

    async def send(text):
        sending.append(text)
        await sent.wait()

    monkeypatch.setattr(follower.subscription, "_send", send)
    follower.hear(report((ONE + 5, "m"), (ONE + 9, "on")), report((ONE + 13, "end"), since=ONE + 9))
    await until(lambda: sending)
    follower.subscription.stop()
    sent.set()
    await until(follower.subscription._writer.done)
    assert len(sending) == 1


async def test_a_follower_that_is_stopped_before_the_start_is_shown_the_run_and_no_more():
    follower = Follower(await a_run(**RUNNING))
    follower.hear(report((ONE + 9, "on")))
    follower.subscription.stop()
    await follower.start()
    await until(follower.subscription._writer.done)
    assert follower.told() == []


# What cannot be sent now is told later


def failing(follower, monkeypatch):
    """Let the next send fail."""
    failures = [ConnectionError("not now")]

    async def send(text):
        if failures:
            raise failures.pop()
        await follower.send(text)

    monkeypatch.setattr(follower.subscription, "_send", send)


SENT = [("message", "a"), ("message", "b")]


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (TALKING, [*SENT, ("target", 9), ("progress", 3)]),
        (DONE, [*SENT, ("target", 9), ("progress", 9), ("finished", "succeeded")]),
        (AGAIN, [*SENT, BEGUN]),
    ],
)
async def test_what_the_row_says_is_told_once_whichever_send_fails(monkeypatch, after, told):
    for count in range(len(told)):
        info = await a_run(**RUNNING)
        follower = await Follower(info).start()
        await change(info, (ONE + 5, "a"), (ONE + 6, "b"), **after)

        async def send(text, follower=follower, count=count):
            if len(follower.told()) == count:
                raise ConnectionError("not now")
            await follower.send(text)

        with monkeypatch.context() as patch:
            patch.setattr(follower.subscription, "_send", send)
            follower.subscription.catch_up()
            await follower.quiet()
        assert follower.told() == told[:count]
        assert not follower.ended
        assert follower.subscription.seq < after["seq"], "the watch sees that it is behind"
        follower.subscription.catch_up()
        await follower.quiet()
        assert follower.told() == told
        follower.subscription.stop()


async def test_what_could_not_be_sent_of_a_report_is_told_with_the_next(monkeypatch):
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await change(info, (ONE + 5, "a"), **TALKING)
    failing(follower, monkeypatch)
    follower.hear(report((ONE + 5, "m a"), (ONE + 10, "lost"), since=ONE + 4))
    await follower.quiet()
    assert follower.told() == []
    follower.hear(report((ONE + 14, "on"), since=ONE + 10))
    await heard_up_to("on", follower)
    assert follower.told() == [("message", "a"), ("target", 9), ("progress", 3), ("said", "on")]


async def test_an_end_that_could_not_be_sent_is_told_later(monkeypatch):
    info, ends = await a_run(**RUNNING), []
    follower = await Follower(info, ends.append).start()
    await change(info, status="failed", seq=ONE + 8)
    failing(follower, monkeypatch)
    follower.hear(report((ONE + 8, "end"), since=ONE + 4))
    await follower.quiet()
    assert not follower.ended
    assert follower.subscription.seq < ONE + 8, "the watch sees that it is behind"
    follower.subscription.catch_up()
    await until(lambda: ends)
    assert follower.told() == [("finished", "failed")]


async def test_that_a_run_is_deleted_is_told_later_too(monkeypatch):
    info = await a_run(**RUNNING)
    follower = await Follower(info).start()
    await TaskInfo.objects.all().adelete()
    failing(follower, monkeypatch)
    follower.subscription.catch_up()
    await follower.quiet()
    assert not follower.ended
    follower.subscription.catch_up()
    await until(lambda: follower.ended)
    assert follower.told() == [("error", "not_found")]


# The hub


@asynccontextmanager
async def opened(hub=None):
    hub = hub or Hub()
    hub.open()
    try:
        yield hub
    finally:
        await hub.close()


async def follow(hub, info, kind=Follower, **options):
    follower = kind(info, on_end=hub.remove)
    await hub.add(follower.subscription)
    return await follower.start(**options)


@pytest.fixture
def quick(monkeypatch):
    """The hub looks often, and does not wait long."""
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(hubs, "CONNECT_TIMEOUT", 0.02)
    monkeypatch.setattr(hubs, "FIRST_PAUSE", 0.01)


class Talk(Task):
    """Say much, for so long that it takes several reports."""

    name = "talk"

    async def run(self):
        for n in self.track(range(40)):
            self.add_message(n)
            await asyncio.sleep(0.001)


async def executed(info):
    executor = Executor(4)
    try:
        for _ in range(info.max_attempts):
            await executor.execute(info.uuid)
    finally:
        await executor.close()


def layer(name, **config):
    return {"taskapi": {"BACKEND": f"tests.support.layers.{name}", "CONFIG": {"capacity": 100_000, **config}}}


LOSSES = [
    *({"loss": 0.3, "late": 0.3, "seed": seed} for seed in range(6)),
    {"loss": 0.9, "seed": 6},
    {"loss": 0.0, "late": 0.9, "seed": 7},
    {"loss": 1.0},
]


@pytest.fixture(params=LOSSES, ids=str)
def lossy(request, settings, quick, queue):
    settings.CHANNEL_LAYERS = layer("LossyLayer", **request.param)
    settings.TASK_API_BACKGROUND_TASKS = [Talk, TalkAgain]
    settings.TASK_API_EVENT_INTERVAL = 0.002


async def followed(info):
    """Steady and flaky followers that came before the run, during it, and after its end; when all is told."""
    async with opened() as hub:
        followers = [await follow(hub, info), await follow(hub, info, FlakyFollower)]
        executing = asyncio.create_task(executed(info))
        await until(lambda: len(followers[0].frames) > 5)
        followers += [await follow(hub, info), await follow(hub, info, FlakyFollower, after=3)]
        async with asyncio.timeout(LIMIT):
            await executing
        followers.append(await follow(hub, info))
        await until(lambda: all(follower.ended for follower in followers))
        return followers


def messages(follower):
    return [told for kind, told in follower.told() if kind == "message"]


@pytest.mark.usefixtures("lossy")
async def test_whatever_is_lost_or_late_each_follower_gets_everything_once_and_in_order():
    followers = await followed(await TaskInfo.objects.acreate(task="talk", max_attempts=1))
    for follower in followers:
        check_stream(follower.frames)
    for follower in followers[:2]:
        assert follower.frames[-1]["task"]["message_count"] == 40
        assert messages(follower) == list(range(40))
        assert follower.told()[0] == BEGUN


@pytest.mark.usefixtures("lossy")
async def test_whatever_is_lost_or_late_an_attempt_begins_with_its_beginning():
    followers = await followed(await TaskInfo.objects.acreate(task="talk_again", max_attempts=2))
    for follower in followers:
        attempt, told = follower.frames[0]["task"]["attempt"], follower.frames[1:]
        for frame in told:
            if frame["attempt"] != attempt:
                assert (frame["type"], frame.get("status")) == BEGUN
                assert frame["attempt"] > attempt
                attempt = frame["attempt"]
        numbers = [frame["seq"] for frame in told]
        assert numbers == sorted(set(numbers))
        assert [frame["type"] for frame in told].index("finished") == len(told) - 1
    for follower in followers[:2]:
        assert messages(follower) == [[attempt, n] for attempt in (1, 2) for n in range(20)]


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_an_end_that_no_later_event_shows_is_found():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        await change(info, (ONE + 5, "bye"), status="succeeded", seq=ONE + 10)
        await until(lambda: follower.ended)
    assert follower.told() == [("message", "bye"), ("finished", "succeeded")]


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_message_that_no_later_event_shows_is_found():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        await change(info, (ONE + 5, "hello"), seq=ONE + 9)
        await until(follower.told)
    assert follower.told() == [("message", "hello")]


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_that_a_run_was_deleted_is_found():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        one, two = await follow(hub, info), await follow(hub, info)
        await TaskInfo.objects.all().adelete()
        await until(lambda: not hub._followers)
    assert one.told() == two.told() == [("error", "not_found")]


@pytest.fixture
def looks(monkeypatch):
    """The looks at the rows of followed runs, as they happen."""
    looks, look = [], hubs._read_rows
    monkeypatch.setattr(hubs, "_read_rows", lambda uuids: (looks.append(uuids), look(uuids))[1])
    return looks


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_run_that_is_not_there_yet_is_not_gone(looks):
    """A socket that starts a run follows it before its row exists."""
    info = TaskInfo(task="any")
    async with opened() as hub:
        follower = Follower(info, on_end=hub.remove)
        await hub.add(follower.subscription)
        await until(lambda: looks.count([info.uuid]) > 1)
        await info.asave()
        await follower.start()
        await follower.quiet()
        assert follower.told() == []
        assert not follower.ended
        hub.remove(follower.subscription)


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_look_at_all_the_runs_that_are_followed_is_one_query(monkeypatch):
    looks, queries = [], []
    usual = hubs._read_rows

    def look(uuids):
        with connection.execute_wrapper(lambda execute, sql, *rest: (queries.append(sql), execute(sql, *rest))[1]):
            looks.append(uuids)
            return usual(uuids)

    monkeypatch.setattr(hubs, "_read_rows", look)
    runs = [await a_run(**RUNNING) for _ in range(10)]
    async with opened() as hub:
        for info in (*runs, *runs):
            await follow(hub, info)
        looks.clear()
        queries.clear()
        await until(lambda: len(looks) >= 3)
        assert set(looks[-1]) == {info.uuid for info in runs}
        assert len(queries) == len(looks)


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_follower_that_is_up_to_date_is_not_woken(paused, looks):
    paused.going.set()
    info = await a_run(**RUNNING)
    async with opened() as hub:
        await until(hub._connected.is_set)  # then the hub brings all followers up to date
        follower = await follow(hub, info)
        await change(info, seq=ONE + 9)
        await published(info, (ONE + 9, "on"), since=ONE + 4)
        await until(lambda: follower.subscription.seq == ONE + 9)
        await follower.quiet()
        looks.clear()
        paused.count = 0
        await until(lambda: len(looks) > 3)
        await follower.quiet()
    assert paused.count == 0


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_database_that_is_away_for_a_while_does_not_end_the_watch(monkeypatch, caplog):
    monkeypatch.setattr(hubs, "_read_rows", lambda uuids: 1 / 0)
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        await until(lambda: "could not be looked at" in caplog.text)
        monkeypatch.undo()
        await change(info, status="failed", seq=ONE + 8)
        await until(lambda: follower.ended)


# The layer is away


@pytest.fixture
def away(settings, quick):
    settings.CHANNEL_LAYERS = layer("AwayLayer")
    return channel_layer.get_layer()


async def published(info, *told, since=0):
    await events.publish(info.uuid, report(*told, since=since))


async def test_a_run_can_be_followed_while_the_layer_is_away(away):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        assert follower.frames[0]["task"]["status"] == "running"
        await change(info, (ONE + 5, "hello"), seq=ONE + 9)
        await until(follower.told)
        await change(info, status="succeeded", seq=ONE + 13)
        await until(lambda: follower.ended)
    assert follower.told() == [("message", "hello"), ("finished", "succeeded")]


async def test_a_layer_that_comes_later_is_joined(away, monkeypatch):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        away.come_back()
        await until(lambda: away.groups)
        monkeypatch.setattr(hubs, "_read_rows", lambda uuids: {})  # the watch finds nothing
        await published(info, (ONE + 9, "live"))
        await until(lambda: said(follower) == ["live"])


async def test_a_layer_that_breaks_is_joined_again_and_what_was_missed_is_told(away, caplog):
    away.come_back()
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        first = await until(lambda: dict(away.groups))
        away.leave()
        await until(lambda: "Events cannot be heard" in caplog.text)
        await away.flush()  # it restarts, and forgets the members of its groups
        await change(info, (ONE + 5, "missed"), seq=ONE + 9)
        away.come_back()
        second = await until(lambda: dict(away.groups))
        await until(lambda: follower.told() == [("message", "missed")])
        await published(info, (ONE + 13, "live"), since=ONE + 9)
        await until(lambda: said(follower)[-1] == "live")
    assert first.keys() == second.keys()
    assert first != second  # another channel


async def test_the_first_follower_after_an_outage_is_in_the_group_at_once(away, patient):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        await until(lambda: hub._away)
        away.come_back()
        await until(hub._connected.is_set)
        await follow(hub, info)
        assert set(away.groups) == {channel_layer.group(info.uuid)}


async def test_a_layer_that_has_worked_is_soon_tried_again_however_long_it_was_away_before(away, caplog):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        await until(lambda: len(caplog.records) > 3)
        for _ in range(2):
            away.come_back()
            await until(hub._connected.is_set)
            follower = await follow(hub, info)
            await until(lambda: away.groups)
            await published(info, (ONE + 9, "on"))
            await heard_up_to("on", follower)
            hub.remove(follower.subscription)
            caplog.clear()
            away.leave()
            broke = await until(lambda: next((at for at in caplog.records if "next try" in at.msg), None))
            assert broke.args[-1] == hubs.FIRST_PAUSE


async def test_what_happens_while_a_layer_is_joined_again_is_told(away, patient, caplog, monkeypatch):
    away.come_back()
    info = await a_run(**RUNNING)
    group_add, meanwhile = away.group_add, iter(["before it has joined, nothing can be heard"])

    async def join(group, channel):
        for message in meanwhile:
            await change(info, (ONE + 5, message), seq=ONE + 9)
        await group_add(group, channel)

    async with opened() as hub:
        follower = await follow(hub, info)
        away.leave()
        await until(lambda: "Events cannot be heard" in caplog.text)
        await away.flush()
        monkeypatch.setattr(away, "group_add", join)
        away.come_back()
        await until(follower.told)
    assert follower.told() == [("message", "before it has joined, nothing can be heard")]


async def test_a_group_that_was_joined_with_a_channel_that_is_gone_is_joined_with_the_next(away, monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 3600)
    monkeypatch.setattr(hubs, "CONNECT_TIMEOUT", LIMIT)
    away.come_back()
    info = await a_run(**RUNNING)
    group_add, joining, going = away.group_add, asyncio.Event(), asyncio.Event()

    async def join(group, channel):
        joining.set()
        await going.wait()
        await group_add(group, channel)

    monkeypatch.setattr(away, "group_add", join)
    async with opened() as hub:
        following = asyncio.create_task(follow(hub, info))
        await joining.wait()
        first = hub._feed
        away.leave()
        await until(lambda: hub._feed is None)
        away.come_back()
        second = await until(lambda: hub._feed)
        going.set()
        await following
        await until(lambda: second.channel in away.groups.get(channel_layer.group(info.uuid), {}))
    assert first != second


async def test_a_group_that_could_not_be_joined_is_tried_again(away, monkeypatch):
    away.come_back()
    info = await a_run(**RUNNING)

    async def refuse(group, channel):
        raise ConnectionError("not now")

    async with opened() as hub:
        with monkeypatch.context() as patch:
            patch.setattr(away, "group_add", refuse)
            await follow(hub, info)
            assert away.groups == {}
        await until(lambda: away.groups)


@pytest.fixture
def patient(monkeypatch):
    """The hub does not look at rows, and waits long enough for the test to notice it."""
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 3600)
    monkeypatch.setattr(hubs, "CONNECT_TIMEOUT", 0.5)
    return 10 * 0.5  # seconds: the limit for something that waits once


async def test_only_the_first_waits_for_a_layer_that_is_away(away, patient):
    infos = [await a_run(**RUNNING) for _ in range(20)]
    async with opened() as hub, asyncio.timeout(patient):
        for info in infos:
            await follow(hub, info)


async def test_only_the_first_wait_for_a_layer_that_hangs(slow, patient, monkeypatch):
    together, later = [await a_run(**RUNNING) for _ in range(20)], [await a_run(**RUNNING) for _ in range(20)]
    tries, group_add = [], channel_layer.get_layer().group_add
    monkeypatch.setattr(channel_layer.get_layer(), "group_add", lambda *args: tries.append(args) or group_add(*args))
    async with opened() as hub:
        await until(hub._connected.is_set)
        slow.clear()
        async with asyncio.timeout(patient):
            await asyncio.gather(*(follow(hub, info) for info in together))  # not one after the other
            tried = len(tries)
            for info in later:
                await follow(hub, info)
    assert 0 < len(tries) == tried < 5


async def test_a_layer_that_hangs_does_not_keep_the_watch_from_looking(slow, patient, monkeypatch):
    infos = [await a_run(**RUNNING) for _ in range(20)]
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    slow.clear()
    async with opened() as hub:
        followers = [await follow(hub, info) for info in infos]
        async with asyncio.timeout(patient):
            for info in infos:
                await change(info, (ONE + 5, "a"), seq=ONE + 9)
            await until(lambda: all(follower.told() for follower in followers))
            for info in infos:
                await change(info, status="succeeded", seq=ONE + 13)
            await until(lambda: all(follower.ended for follower in followers))


@pytest.mark.usefixtures("quick")
async def test_a_layer_that_hung_is_waited_for_again_when_it_answers(slow, monkeypatch):
    first, second, third = [await a_run(**RUNNING) for _ in range(3)]
    async with opened() as hub:
        await until(hub._connected.is_set)
        slow.clear()
        await follow(hub, first)
        await follow(hub, second)
        slow.set()
        await until(lambda: {first.uuid, second.uuid} == set(hub._joined))
        monkeypatch.setattr(hubs, "CONNECT_TIMEOUT", LIMIT)  # a busy machine may take longer than a second
        await follow(hub, third)
        assert third.uuid in hub._joined


async def test_a_message_of_the_layer_that_is_none_of_ours_does_not_end_the_hub(away, caplog):
    away.come_back()
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        await away.group_send(channel_layer.group(info.uuid), {"type": "strange"})
        await until(lambda: "not a report of this version" in caplog.text)
        await published(info, (ONE + 9, "live"))
        await until(lambda: said(follower) == ["live"])


# The members of groups


@pytest.mark.usefixtures("memory_layer")
async def test_one_channel_of_the_layer_serves_every_follower():
    runs = [await a_run(**RUNNING) for _ in range(3)]
    async with opened() as hub:
        for info in (*runs, *runs):
            await follow(hub, info)
        groups = channel_layer.get_layer().groups
        assert set(groups) == {channel_layer.group(info.uuid) for info in runs}
        assert len({channel for channels in groups.values() for channel in channels}) == 1


@pytest.mark.usefixtures("memory_layer")
async def test_a_report_reaches_the_followers_of_its_run_and_nobody_else():
    ours, theirs = await a_run(**RUNNING), await a_run(**RUNNING)
    async with opened() as hub:
        one, two, other = await follow(hub, ours), await follow(hub, ours), await follow(hub, theirs)
        await published(ours, (ONE + 9, "ours"))
        await published(theirs, (ONE + 9, "theirs"))
        await until(lambda: said(other))
    assert (said(one), said(two), said(other)) == (["ours"], ["ours"], ["theirs"])


@pytest.mark.usefixtures("memory_layer")
async def test_a_follower_that_was_removed_hears_nothing():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        stays, goes = await follow(hub, info), await follow(hub, info)
        hub.remove(goes.subscription)
        await published(info, (ONE + 9, "on"))
        await until(lambda: said(stays))
        assert said(goes) == []
        hub.remove(stays.subscription)
        await until(lambda: not channel_layer.get_layer().groups)
        hub.remove(stays.subscription)  # a second call changes nothing


@pytest.mark.usefixtures("memory_layer")
async def test_a_follower_that_comes_right_after_the_last_one_left_is_in_the_group():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        first = await follow(hub, info)
        hub.remove(first.subscription)
        second = await follow(hub, info)
        await until(lambda: not hub._leaving)
        await published(info, (ONE + 9, "on"))
        await until(lambda: said(second) == ["on"])


@pytest.mark.usefixtures("memory_layer")
async def test_a_run_that_has_ended_is_followed_no_longer():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        follower = await follow(hub, info)
        await published(info, (ONE + 9, "end"))
        await until(lambda: follower.ended and not channel_layer.get_layer().groups)
        assert hub._followers == {}


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_follower_that_cannot_be_sent_to_disturbs_no_other_and_is_told_later(monkeypatch, caplog):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        unlucky, lucky = await follow(hub, info), await follow(hub, info)
        with monkeypatch.context() as patch:
            patch.setattr(unlucky.subscription, "_send", lambda text: 1 / 0)
            await change(info, (ONE + 5, "a"), seq=ONE + 9)
            await until(lucky.told)
            await change(info, status="succeeded", seq=ONE + 13)
            await until(lambda: lucky.ended and "could not be told" in caplog.text)
            assert unlucky.told() == []
        await until(lambda: unlucky.ended)
    assert unlucky.told() == lucky.told() == [("message", "a"), ("finished", "succeeded")]


@pytest.mark.usefixtures("quick", "memory_layer")
async def test_a_follower_whose_row_cannot_be_read_disturbs_nobody_and_is_told_later(monkeypatch, caplog):
    theirs, ours = await a_run(**RUNNING), await a_run(**RUNNING)
    read = subscription._read_changes

    def broken(uuid, known):
        if uuid == theirs.uuid:
            raise ConnectionError("not now")
        return read(uuid, known)

    async with opened() as hub:
        unlucky, lucky = await follow(hub, theirs), await follow(hub, ours)
        with monkeypatch.context() as patch:
            patch.setattr(subscription, "_read_changes", broken)
            for info in (theirs, ours):
                await change(info, (ONE + 5, "a"), status="succeeded", seq=ONE + 9)
            await until(lambda: lucky.ended and "could not be told" in caplog.text)
            assert unlucky.told() == []
        await until(lambda: unlucky.ended)
    assert unlucky.told() == lucky.told() == [("message", "a"), ("finished", "succeeded")]


@pytest.mark.usefixtures("memory_layer")
async def test_a_live_report_reaches_the_others_where_one_cannot_be_sent_to(monkeypatch):
    info = await a_run(**RUNNING)
    async with opened() as hub:
        gone, there = await follow(hub, info), await follow(hub, info)
        monkeypatch.setattr(gone.subscription, "_send", lambda text: 1 / 0)
        await published(info, (ONE + 9, "on"))
        await published(info, (ONE + 13, "on and on"), since=ONE + 9)
        await heard_up_to("on and on", there)
        assert said(there) == ["on", "on and on"]
        for follower in (gone, there):
            hub.remove(follower.subscription)


# Opening and closing


@pytest.fixture
def slow(memory_layer, monkeypatch):
    """Joining and leaving groups takes some time, as on a network, and waits while `slow` is not set."""
    layer, going = channel_layer.get_layer(), asyncio.Event()
    going.set()

    def slowly(function):
        async def call(*args):
            await asyncio.sleep(0.001)
            await going.wait()
            await function(*args)

        return call

    monkeypatch.setattr(layer, "group_add", slowly(layer.group_add))
    monkeypatch.setattr(layer, "group_discard", slowly(layer.group_discard))
    return going


async def test_a_hub_leaves_nothing_behind(settings):
    settings.CHANNEL_LAYERS = layer("SlowLayer")
    before = asyncio.all_tasks()
    async with opened() as hub:
        followers = [await follow(hub, await a_run(**RUNNING)) for _ in range(3)]
        assert len(channel_layer.get_layer().groups) == 3
        assert len(asyncio.all_tasks() - before) == 2 + 3, "two tasks of the hub, and three writers"
        for follower in followers:
            hub.remove(follower.subscription)
    await until(lambda: asyncio.all_tasks() == before)
    assert channel_layer.get_layer().groups == {}


@pytest.mark.usefixtures("quick")
async def test_a_layer_that_does_not_answer_keeps_no_hub_from_closing(slow):
    before = asyncio.all_tasks()
    async with asyncio.timeout(LIMIT), opened() as hub:
        followers = [await follow(hub, await a_run(**RUNNING)) for _ in range(3)]
        slow.clear()
        for follower in followers:
            hub.remove(follower.subscription)
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_hub_whose_closing_is_cancelled_is_closed(slow):
    before = asyncio.all_tasks()
    hub = Hub()
    hub.open()
    hub.remove((await follow(hub, await a_run(**RUNNING))).subscription)
    slow.clear()
    closing = asyncio.create_task(hub.close())
    await until(lambda: hub._users == 0)
    closing.cancel()
    slow.set()
    await asyncio.wait({closing}, timeout=LIMIT)
    assert closing.cancelled()
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("moment", ["before the old chores end", "while groups are left"])
async def test_a_hub_that_is_opened_while_it_closes_is_open(slow, moment):
    """A page is reloaded: its new socket opens while its old one closes, and no other is open."""
    hub = Hub()
    info = await a_run(**RUNNING)
    hub.open()
    await until(hub._connected.is_set)
    if moment == "while groups are left":
        hub.remove((await follow(hub, info)).subscription)
        slow.clear()
        closing = asyncio.create_task(hub.close())
        await until(lambda: hub._users == 0)
        assert hub._chores
    else:
        closing = asyncio.create_task(hub.close())
        await asyncio.sleep(0)  # a turn of the loop: it has begun, and waits
        assert hub._users == 0
        assert not hub._chores
    async with opened(hub):
        slow.set()
        async with asyncio.timeout(LIMIT):
            await closing
        follower = await follow(hub, info)
        await until(lambda: info.uuid in hub._joined)
        await published(info, (ONE + 9, "on"))
        await heard_up_to("on", follower)
        hub.remove(follower.subscription)
    await until(lambda: not channel_layer.get_layer().groups)


async def test_chores_that_end_late_leave_those_of_a_hub_that_was_opened_again_their_channel(away, monkeypatch):
    away.come_back()
    info = await a_run(**RUNNING)
    receive, receiving, going = away.receive, asyncio.Event(), asyncio.Event()

    async def receive_to_the_end(channel):
        receiving.set()
        try:
            return await receive(channel)
        finally:
            await going.wait()

    monkeypatch.setattr(away, "receive", receive_to_the_end)
    hub = Hub()
    hub.open()
    await receiving.wait()
    first = hub._feed
    closing = asyncio.create_task(hub.close())
    await asyncio.sleep(0)  # a turn of the loop: it has begun, and waits
    async with opened(hub):
        await until(lambda: hub._feed not in (None, first))
        going.set()
        await closing
        follower = await follow(hub, info)
        await until(lambda: away.groups)
        await published(info, (ONE + 9, "on"))
        await heard_up_to("on", follower)
        hub.remove(follower.subscription)


@pytest.mark.parametrize("turns", range(6))
async def test_waiting_for_the_layer_can_be_cancelled_at_any_moment(memory_layer, turns):
    hub = Hub()
    adding = asyncio.create_task(hub.add(Follower(await a_run()).subscription))
    await until(lambda: hub._connected._waiters)
    hub._connected.set()
    for _ in range(turns):
        await asyncio.sleep(0)  # a turn of the loop: each moment is tested
    if adding.cancel():
        await asyncio.wait({adding}, timeout=LIMIT)
        assert adding.cancelled()


@pytest.mark.usefixtures("memory_layer")
async def test_a_hub_lives_until_the_last_socket_closes():
    info = await a_run(**RUNNING)
    async with opened() as hub:
        async with opened(hub):
            follower = await follow(hub, info)
        await published(info, (ONE + 9, "on"))
        await until(lambda: said(follower) == ["on"])


@pytest.mark.usefixtures("memory_layer")
async def test_a_hub_that_was_closed_can_be_opened_again():
    hub = Hub()
    info = await a_run(**RUNNING)
    async with opened(hub):
        hub.remove((await follow(hub, info)).subscription)
    async with opened(hub):
        follower = await follow(hub, info)
        await published(info, (ONE + 9, "on"))
        await until(lambda: said(follower) == ["on"])


async def test_a_loop_has_one_hub():
    assert get_hub() is get_hub()
    assert await asyncio.to_thread(lambda: asyncio.run(_hub())) is not get_hub()


async def _hub():
    return get_hub()


# Sockets


class Client:
    """A socket's other end: `frames` is what it was sent."""

    def __init__(self):
        self.frames = []
        self.received = asyncio.Queue()
        self.failures = 0  # sends that will fail next

    async def send(self, message):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("not now")
        self.frames.append(json.loads(message["text"]) if "text" in message else message)

    def say(self, **frame):
        self.received.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    async def answer(self, **frame):
        """Send the frame, and wait for the answer."""
        ref = str(len(self.frames))
        self.say(**frame, ref=ref)
        return await until(lambda: next((answer for answer in self.frames if answer.get("ref") == ref), None))

    def kinds(self):
        return [frame["type"] for frame in self.frames[1:]]


@pytest.fixture
async def client(memory_layer):
    client = Client()
    scope = {"type": "websocket", "path": "/tasks/ws/", "headers": [], "query_string": b"", "subprotocols": []}
    client.serving = asyncio.create_task(TaskConsumer()(scope, client.received.get, client.send))
    client.received.put_nowait({"type": "websocket.connect"})
    await until(lambda: client.frames)
    yield client
    client.received.put_nowait({"type": "websocket.disconnect"})
    await asyncio.wait({client.serving}, timeout=LIMIT)
    assert client.serving.done()


def is_empty(hub):
    return not (hub._users or hub._followers or hub._chores or hub._leaving or channel_layer.get_layer().groups)


async def test_a_second_subscription_takes_the_place_of_the_first(client):
    info = await a_run(**RUNNING)
    await client.answer(type="subscribe", uuid=str(info.uuid))
    (first,) = get_hub()._followers[info.uuid]
    await client.answer(type="subscribe", uuid=str(info.uuid))
    (second,) = get_hub()._followers[info.uuid]
    assert first is not second
    await until(first._writer.done)
    await until(lambda: info.uuid in get_hub()._joined)
    await published(info, (ONE + 9, "on"))
    await published(info, (ONE + 13, "end"), since=ONE + 9)
    await until(lambda: not get_hub()._followers)
    assert client.kinds() == ["snapshot", "snapshot", "said", "said"]


async def test_a_subscription_that_reads_the_row_as_another_takes_its_place_tells_nothing(client, paused):
    info = await a_run(**RUNNING)
    await client.answer(type="subscribe", uuid=str(info.uuid))
    (first,) = get_hub()._followers[info.uuid]
    await change(info, (ONE + 5, "a"), **DONE)
    first.catch_up()
    await until(lambda: paused.count)
    client.say(type="subscribe", uuid=str(info.uuid))
    await until(first._writer.done)
    paused.going.set()
    await until(lambda: "finished" in client.kinds())
    assert client.kinds() == ["snapshot", "snapshot", "finished"]


async def test_a_client_that_unsubscribes_is_told_nothing_more(client):
    info = await a_run(**RUNNING)
    await client.answer(type="subscribe", uuid=str(info.uuid))
    (subscription,) = get_hub()._followers[info.uuid]
    await client.answer(type="unsubscribe", uuid=str(info.uuid))
    subscription.hear(report((ONE + 9, "on")), 2)
    await until(subscription._writer.done)
    assert client.kinds() == ["snapshot", "unsubscribed"]


async def test_a_client_that_could_not_be_shown_the_run_does_not_follow_it(client, caplog):
    info = await a_run(**RUNNING)
    client.failures = 1
    refused = await client.answer(type="subscribe", uuid=str(info.uuid))
    assert (refused["type"], refused["code"]) == ("error", "unavailable")
    assert "could not be served" in caplog.text
    assert get_hub()._followers == {}


async def test_a_client_that_could_not_be_told_that_its_run_began_does_not_follow_it(client, settings, queue):
    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    client.failures = 1
    refused = await client.answer(type="run", task="talk")
    assert (refused["type"], refused["code"]) == ("error", "unavailable")
    assert get_hub()._followers == {}


async def test_that_a_run_is_deleted_is_told_with_its_uuid_and_the_socket_goes_on(client):
    info = await a_run(**RUNNING)
    await client.answer(type="subscribe", uuid=str(info.uuid))
    await TaskInfo.objects.all().adelete()
    get_hub()._catch_up(info.uuid)
    await until(lambda: not get_hub()._followers)
    assert client.frames[-1] == {"type": "error", "uuid": str(info.uuid), "code": "not_found", "detail": "Not found."}
    assert (await client.answer(type="ping"))["type"] == "pong"


@pytest.mark.parametrize("how", ["disconnected", "cancelled"])
async def test_however_a_socket_ends_it_leaves_the_hub_empty(client, how):
    hub = get_hub()
    for info in [await a_run(**RUNNING) for _ in range(3)]:
        await client.answer(type="subscribe", uuid=str(info.uuid))
    assert len(hub._followers) == 3
    writers = [subscription._writer for followers in hub._followers.values() for subscription in followers]
    if how == "cancelled":
        client.serving.cancel()
    else:
        client.received.put_nowait({"type": "websocket.disconnect"})
    await asyncio.wait({client.serving}, timeout=LIMIT)
    assert client.serving.cancelled() == (how == "cancelled")
    await until(lambda: all(writer.done() for writer in writers))
    assert is_empty(hub)


@pytest.mark.parametrize("waits_for", ["the layer", "the database"])
async def test_a_socket_that_is_cancelled_as_it_subscribes_leaves_the_hub_empty(client, monkeypatch, waits_for):
    hub, info = get_hub(), await a_run(**RUNNING)
    started, going = [], threading.Event()

    async def join(uuid):
        started.append(uuid)
        await asyncio.Event().wait()

    def find(self, uuid):
        started.append(uuid)
        assert going.wait(LIMIT)
        return info

    if waits_for == "the layer":
        monkeypatch.setattr(hub, "_join", join)
    else:
        monkeypatch.setattr(TaskConsumer, "_find", find)
    client.say(type="subscribe", uuid=str(info.uuid))
    await until(lambda: started)
    assert info.uuid in hub._followers
    client.serving.cancel()
    going.set()
    await asyncio.wait({client.serving}, timeout=LIMIT)
    assert client.serving.cancelled()
    await until(lambda: is_empty(hub))
    assert client.kinds() == []


# Reading


async def test_a_report_travels_as_it_was_made(memory_layer):
    uuid = uuid4()
    made = report((ONE + 1, "m"), (ONE + 5, "end"), since=7)
    layer = channel_layer.get_layer()
    await layer.group_add(channel_layer.group(uuid), "mine")
    await events.publish(uuid, made)
    assert channel_layer.read(await layer.receive("mine")) == (uuid, made)


def test_the_name_of_a_group_is_one_that_channels_allows(memory_layer):
    assert channel_layer.get_layer().require_valid_group_name(channel_layer.group(uuid4()))


async def test_the_log_is_read_up_to_the_rows_own_count():
    info = await a_run(**RUNNING)
    await change(info, (ONE + 5, "a"), seq=ONE + 9)
    await TaskMessage.objects.acreate(run=info, index=1, attempt=1, seq=ONE + 20, body="not yet")
    read, messages = await in_database(subscription._read_changes, info.uuid, 0)
    assert (read.message_count, [message.body for message in messages]) == (1, ["a"])
