"""A run as server-sent events: the frames of the WebSocket, resumed at any id, while the caller may see the run."""

import asyncio
import json
import logging
import re
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission

from taskapi import events, runs
from taskapi.callers import rounds
from taskapi.callers.rounds import get_round
from taskapi.events import hub as hubs
from taskapi.events.hub import get_hub
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import Report, State, first_seq
from taskapi.tasks import Task
from taskapi.views import events as streams
from taskapi.workers.executor import Executor
from tests.integration.contract.guarantees import check_stream, messages
from tests.support.asgi import Exchange, get
from tests.support.events import UnreliableEvents
from tests.support.waiting import until, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("in_process", "queue")]

ONE = first_seq(1)
LOGIN = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ALL_OF_DJANGOS = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    *LOGIN,
]
DEADLINE = 60  # seconds


@pytest.fixture
def in_process():
    with events.using(InProcessEvents()) as port:
        yield port


@pytest.fixture
def info():
    return TaskInfo.objects.create(task="talk", status="running", attempt=1, seq=ONE + 4)


# A reader, by what the WHATWG says of the format


class Events:
    """The events of one stream."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.text = ""
        self.frames = []  # their data
        self.ids = []
        self.retry = None
        self.comments = 0
        self.ended = False

    async def more(self):
        """Read on, up to the end of a chunk."""
        chunk = await self.exchange.chunk()
        if chunk is None:
            self.ended = True
            return
        self.text += chunk.decode()
        *whole, self.text = re.split("\n\n", self.text)
        for event in whole:
            self._read(event)

    def _read(self, text):
        fields = {}
        for line in re.split("\r\n|\r|\n", text):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        self.comments += "" in fields
        if "retry" in fields:
            self.retry = int(fields["retry"][0])
        if "data" in fields:
            frame = json.loads("\n".join(fields["data"]))
            assert fields["event"] == [frame["type"]]
            self.frames.append(frame)
            self.ids.append(fields["id"][0])

    async def until(self, kind):
        while not self.ended and kind not in self.kinds():
            await self.more()
        return self

    async def to_the_end(self):
        while not self.ended:
            await self.more()
        return self

    def kinds(self):
        return [frame["type"] for frame in self.frames]


@asynccontextmanager
async def stream(application, uuid, query="", **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with Exchange(application, f"/tasks/{uuid}/events/{query}", headers=sent) as exchange:
        yield Events(exchange)


async def whole(application, uuid, query="", **headers):
    """All events of a stream that ends."""
    async with asyncio.timeout(DEADLINE), stream(application, uuid, query, **headers) as events:
        return await events.to_the_end()


# What happens to a run


def say(info, *bodies, progress=None, publish=True):
    before = State(info.uuid, info.seq, info.attempt)
    log = [
        TaskMessage(run=info, index=info.message_count + n, attempt=info.attempt, seq=info.seq + 1 + n, body=body)
        for n, body in enumerate(bodies)
    ]
    TaskMessage.objects.bulk_create(log)
    info.seq, info.message_count = info.seq + len(bodies) + 4, info.message_count + len(bodies)
    info.progress = progress
    info.save()
    if publish:
        events.publish_from_thread(info.uuid, Report.between(before, info, info.message_count, log))


def end(info, *, publish=True):
    info.seq += 4
    info.status, info.outputs = "succeeded", {}
    info.save()
    if publish:
        events.publish_from_thread(info.uuid, runs.final_report(info))


later = sync_to_async


def nothing_is_left():
    hub = get_hub()
    return (hub._users, hub._followers, hub._chores, get_round()._connections) == (0, {}, [], set())


class Talk(Task):
    name = "talk"

    async def run(self):
        self.set_target(20)
        for number in range(20):
            self.inc_progress()
            self.add_message({"number": number, "attempt": self.info.attempt})
            await asyncio.sleep(0.001)
        if self.info.attempt < 2:
            raise ConnectionError


Talk.retry_on, Talk.retry_delay = (ConnectionError,), 0


# What is streamed


async def test_a_run_is_told_from_its_snapshot_to_its_end(handler, settings):
    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    info = await TaskInfo.objects.acreate(task="talk", max_attempts=1)
    executor = Executor(4)
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        assert told.frames[0]["task"]["status"] == "pending"
        await executor.execute(info.uuid)
        await told.to_the_end()
    await executor.close()
    check_stream(told.frames)
    assert told.exchange.headers["content-type"] == "text/event-stream"
    assert "ref" not in told.frames[0]
    assert told.ids[-1] == "20"
    await until(nothing_is_left)


async def test_of_two_attempts_all_is_told_once_and_in_order(handler, settings):
    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    info = await TaskInfo.objects.acreate(task="talk", max_attempts=2)
    executor = Executor(4)
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await executor.execute(info.uuid)
        await executor.execute(info.uuid)
        await told.to_the_end()
    await executor.close()
    said = [{"number": number, "attempt": attempt} for attempt in (1, 2) for number in range(20)]
    assert messages(told.frames) == said
    assert [frame["seq"] for frame in told.frames[1:]] == sorted({frame["seq"] for frame in told.frames[1:]})
    assert told.kinds().count("finished") == 1
    assert told.kinds()[-1] == "finished"


async def test_a_stream_is_resumed_at_each_of_its_ids(handler, info):
    project = handler()
    async with stream(project, info.uuid) as told:
        for number in range(4):
            await later(say)(info, f"{number} a", f"{number} b", progress=number)
        await later(end)(info)
        await told.to_the_end()
    said = [message.body async for message in info.log.order_by("index")]
    assert told.frames[0]["task"]["messages"] + messages(told.frames) == said
    for place, known in enumerate(told.ids):
        before = told.frames[: place + 1]
        heard = before[0]["task"]["messages"] + messages(before)
        resumed = await whole(project, info.uuid, Last_Event_ID=known)
        assert heard + resumed.frames[0]["task"]["messages"] + messages(resumed.frames) == said
        assert resumed.kinds()[0] == "snapshot"
        assert resumed.kinds()[-1] == "finished"
        assert resumed.ids[-1] == str(len(said))


@pytest.mark.parametrize("known", ["", "x", "-1", "1.5", "9" * 400, "٣".encode().decode("latin1"), "null", "3 ", "\t"])
async def test_an_id_that_is_none_of_ours_begins_at_the_beginning(handler, info, known):
    await later(say)(info, "a", "b")
    await later(end)(info)
    told = await whole(handler(), info.uuid, Last_Event_ID=known)
    assert told.frames[0]["task"]["messages"] == ["a", "b"]


@pytest.mark.parametrize(("known", "expected"), [("1", ["b"]), ("2", []), ("3", []), ("999999999999999", [])])
async def test_the_snapshot_has_the_messages_that_are_not_known(handler, info, known, expected):
    await later(say)(info, "a", "b")
    await later(end)(info)
    project = handler()
    for told in (
        await whole(project, info.uuid, f"?after={known}"),
        await whole(project, info.uuid, Last_Event_ID=known),
    ):
        assert told.frames[0]["task"]["messages"] == expected
        assert told.frames[0]["task"]["message_count"] == 2
        assert (told.kinds(), told.ids[-1]) == (["snapshot", "finished"], "2")


async def test_the_last_id_counts_and_not_the_address_that_the_client_began_with(handler, info):
    await later(say)(info, "a", "b", "c")
    await later(end)(info)
    told = await whole(handler(), info.uuid, "?after=1", Last_Event_ID="2")
    assert told.frames[0]["task"]["messages"] == ["c"]


async def test_a_finished_run_is_told_at_once_and_the_client_need_not_come_back(handler, info):
    await later(end)(info)
    told = await whole(handler(), info.uuid)
    assert told.kinds() == ["snapshot", "finished"]
    assert told.retry >= 3_600_000
    await until(nothing_is_left)


async def test_no_line_of_a_message_ends_its_event(handler, info):
    odd = [
        "\u2028\u2029\x85",
        "a\rb",
        "a\nb",
        "a\r\nb",
        "\n\ndata: {}\n\n",
        "event: finished\n\n",
        "\0",
        ":",
        "é😀",
        "\ud83d",
    ]
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await later(say)(info, *odd)
        await later(end)(info)
        await told.to_the_end()
    assert messages(told.frames) == odd
    assert told.kinds() == ["snapshot", *["message"] * len(odd), "finished"]


async def test_what_no_frame_can_hold_is_named_and_counted(handler, info, settings):
    settings.TASK_API_LIMITS = {"sent_frame_bytes": 4_000}
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await later(say)(info, "a", "x" * 10_000, "b")
        info.outputs = {"text": "x" * 10_000}
        await later(end)(info)
        await told.to_the_end()
    (large,) = [frame for frame in told.frames if frame["type"] == "message" and "message" not in frame]
    assert (large["omitted"], large["index"]) == (True, 1)
    assert told.ids[-1] == "3"
    resumed = await whole(handler(), info.uuid, Last_Event_ID="1")
    assert [frame.get("index") for frame in resumed.frames if frame["type"] == "message"][:1] == [1]
    assert resumed.ids[-1] == "3"


async def test_a_million_characters_arrive(handler, info):
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await later(say)(info, "x" * 1_000_000)
        await later(end)(info)
        await told.to_the_end()
    assert [len(message) for message in messages(told.frames)] == [1_000_000]


async def test_a_log_of_many_pages_arrives_with_an_id_for_each_line(handler, info):
    await later(say)(info, *(f"{number} " + "x" * 2_000 for number in range(1_500)))
    await later(end)(info)
    told = await whole(handler(), info.uuid)
    said = told.frames[0]["task"]["messages"] + messages(told.frames)
    assert [int(message.split()[0]) for message in said] == list(range(1_500))
    assert told.ids[0] == str(len(told.frames[0]["task"]["messages"]))
    assert told.ids[-1] == "1500"
    resumed = await whole(handler(), info.uuid, Last_Event_ID=told.ids[3])
    said = resumed.frames[0]["task"]["messages"] + messages(resumed.frames)
    assert int(said[0].split()[0]) == int(told.ids[3])


async def test_silence_is_broken_by_comments(handler, info, monkeypatch):
    monkeypatch.setattr(streams, "HEARTBEAT_INTERVAL", 0.02)
    async with stream(handler(), info.uuid) as told:
        while told.comments < 3:
            await told.more()
        assert told.kinds() == ["snapshot"]
        await later(end)(info)
        await told.until("finished")


# What is lost


async def test_of_events_that_are_lost_late_or_doubled_nothing_is_missed_or_told_twice(
    handler, in_process, settings, monkeypatch
):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.05)
    settings.TASK_API_BACKGROUND_TASKS = [Talk]
    for seed in range(8):
        with events.using(UnreliableEvents(in_process, loss=0.3, repeat=0.3, late=0.3, seed=seed)):
            info = await TaskInfo.objects.acreate(task="talk", max_attempts=1)
            executor = Executor(4)
            async with stream(handler(), info.uuid) as told:
                await told.until("snapshot")
                await executor.execute(info.uuid)
                await told.to_the_end()
            await executor.close()
            await until(nothing_is_left)
        check_stream(told.frames)
        assert told.ids == [str(known) for known in sorted(map(int, told.ids))]


async def test_an_end_whose_event_is_lost_is_found(handler, info, monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await later(say)(info, "a", publish=False)
        await later(end)(info, publish=False)
        await told.to_the_end()
    check_stream(told.frames)


async def test_a_run_that_is_deleted_is_told_of_and_ends_the_stream(handler, info, monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    async with stream(handler(), info.uuid) as told:
        await told.until("snapshot")
        await TaskInfo.objects.all().adelete()
        await told.to_the_end()
    assert told.kinds() == ["snapshot", "error"]
    assert (told.frames[1]["code"], told.frames[1]["uuid"]) == ("not_found", str(info.uuid))
    assert told.retry >= 3_600_000
    await until(nothing_is_left)


async def test_a_database_that_is_away_as_a_stream_begins_is_come_back_to(handler, info, monkeypatch, caplog):
    def away(*args, **kwargs):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr("taskapi.events.following._read", away)
    told = await whole(handler(), info.uuid)
    assert (told.kinds(), told.frames[0]["code"]) == (["error"], "unavailable")
    assert told.retry == 5_000, "an EventSource has to come back"
    await until(nothing_is_left)


# Who is refused


async def test_refusals_are_json_as_of_any_call(handler, info, settings):
    project = handler()
    await TaskInfo.objects.aupdate(user=await User.objects.acreate(username="ann"))
    settings.TASK_API_AUTHENTICATION_CLASSES = [BasicAuthentication]
    for uuid, headers, status in (
        (uuid4(), {}, 404),
        (info.uuid, {}, 404),
        (info.uuid, {"Authorization": "Basic ???"}, 401),
    ):
        answer = await get(project, f"/tasks/{uuid}/events/", headers | {"Accept": "text/event-stream"})
        assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
        assert json.loads(answer.text)["detail"]
    settings.TASK_API_PERMISSIONS_CLASSES = [Never]
    answer = await get(project, f"/tasks/{info.uuid}/events/")
    assert answer.status in (401, 403)
    await until(nothing_is_left)


class Never(BasePermission):
    def has_permission(self, request, view):
        return False


@pytest.mark.parametrize(
    "accept", ["text/event-stream", "application/json", "*/*", "text/html", "application/problem+json", ""]
)
async def test_whatever_a_client_accepts_it_gets_a_stream(handler, info, accept):
    await later(end)(info)
    told = await whole(handler(), info.uuid, Accept=accept)
    assert told.exchange.status == 200
    assert told.exchange.headers["content-type"] == "text/event-stream"


async def test_a_head_of_a_stream_ends_at_once(handler, info):
    async with Exchange(handler(), f"/tasks/{info.uuid}/events/", method="HEAD") as exchange:
        assert (await exchange.begin(), await exchange.body()) == (200, b"")
        assert exchange.headers["content-type"] == "text/event-stream"
    async with Exchange(handler(), f"/tasks/{uuid4()}/events/", method="HEAD") as exchange:
        assert await exchange.begin() == 404
    await until(nothing_is_left)


# The caller


@pytest.fixture
def ann():
    return User.objects.create_user("ann", password="secret")


@pytest.fixture
def cookie(ann):
    client = Client()
    client.force_login(ann)
    return client.cookies.output(header="", attrs=[], sep=";").strip()


def log_out(cookie):
    client = Client()
    client.cookies["sessionid"] = cookie.partition("=")[2]
    client.logout()


@pytest.fixture
def often(monkeypatch):
    """Judge callers again at once."""
    monkeypatch.setattr(rounds, "PAUSE", 0.01)
    monkeypatch.setattr("taskapi.callers.caller.JUDGED_FOR", 0.0)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("change", ["logout", "deactivated", "deleted"])
async def test_a_caller_who_is_nobody_any_more_is_told_so_and_hears_no_more(handler, info, cookie, change):
    async with stream(handler(*LOGIN), info.uuid, Cookie=cookie) as told:
        await told.until("snapshot")
        if change == "logout":
            await later(log_out)(cookie)
        elif change == "deleted":
            await later(User.objects.all().delete)()
        else:
            await User.objects.aupdate(is_active=False)
        await told.to_the_end()
    assert told.kinds() == ["snapshot", "error"]
    assert told.frames[1]["code"] == "not_authenticated"
    await until(nothing_is_left)


class ByTenant(BaseAuthentication):
    """Judges by what middleware adds."""

    calls = 0

    def authenticate(self, request):
        ByTenant.calls += 1
        user = User.objects.filter(username=request.tenant, is_active=True).first()
        if user is None:
            raise AuthenticationFailed("Never heard of you.")
        return user, "token"


class Tenant:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.tenant = "ann"
        return self.get_response(request)


class OfTenant(BasePermission):
    def has_permission(self, request, view):
        return request.tenant == "ann" and request.resolver_match.kwargs["uuid"] == view.kwargs["uuid"]


@pytest.mark.usefixtures("ann", "often")
async def test_what_middleware_adds_is_there_whenever_a_caller_is_judged(handler, info, settings, caplog):
    settings.TASK_API_AUTHENTICATION_CLASSES = [ByTenant]
    settings.TASK_API_PERMISSIONS_CLASSES = [OfTenant]
    ByTenant.calls = 0
    async with stream(handler("Tenant"), info.uuid) as told:
        await told.until("snapshot")
        await until(lambda: ByTenant.calls > 4)
        await later(say)(info, "a")
        await told.until("message")
        await User.objects.aupdate(is_active=False)
        await told.to_the_end()
    assert told.kinds() == ["snapshot", "message", "error"]
    assert caplog.text == "" or "could not be judged" not in caplog.text


@pytest.mark.usefixtures("ann", "often")
async def test_a_password_is_hashed_once_for_a_stream(handler, info, settings, monkeypatch):
    settings.TASK_API_AUTHENTICATION_CLASSES = [BasicAuthentication]
    hashed, looked = [], []
    check, revalidate = User.check_password, rounds.Caller.revalidate
    monkeypatch.setattr(User, "check_password", lambda *args: hashed.append(1) or check(*args))
    monkeypatch.setattr(rounds.Caller, "revalidate", lambda self: looked.append(1) or revalidate(self))
    async with stream(handler(), info.uuid, Authorization="Basic YW5uOnNlY3JldA==") as told:
        await told.until("snapshot")
        await until(lambda: len(looked) > 5)
        assert len(hashed) == 1
        await later(end)(info)
        await told.until("finished")


# What it costs


async def test_streams_hold_no_thread_and_leave_nothing_behind(handler, cookie):
    infos = [await TaskInfo.objects.acreate(task="talk", status="running", attempt=1, seq=ONE + 4) for _ in range(40)]
    project = handler(*LOGIN)
    before, tasks = threading.active_count(), len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        told = [await stack.enter_async_context(stream(project, info.uuid, Cookie=cookie)) for info in infos]
        for each in told:
            await each.until("snapshot")
        await until(lambda: threading.active_count() <= before + 5)
        for each in told[::2]:
            each.exchange.leave()
        await until(lambda: len(get_hub()._followers) == 20)
        for info in infos[1::2]:
            await later(end)(info)
        for each in told[1::2]:
            await each.until("finished")
    await until(nothing_is_left)
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    await until(lambda: threading.active_count() <= before + 2)


@pytest.mark.parametrize("middleware", [[], ["SyncOnly"]])
async def test_a_server_that_ends_lets_go_of_streams(handler, info, middleware):
    exchange = Exchange(handler(*middleware), f"/tasks/{info.uuid}/events/")
    await exchange.__aenter__()
    await Events(exchange).until("snapshot")
    await exchange.cut()
    await until(nothing_is_left)


async def test_a_client_that_is_gone_before_the_first_event_leaves_nothing(handler, info):
    project = handler(*LOGIN)
    for _ in range(5):
        async with Exchange(project, f"/tasks/{info.uuid}/events/") as exchange:
            exchange.leave()
    await until(nothing_is_left)


class Slow(Exchange):
    """A server that waits in `send` (as uvicorn and hypercorn do) until the client reads."""

    reads = 2  # messages that it takes before that

    async def __aenter__(self):
        self.going = asyncio.Event()
        put, self._sent.put = self._sent.put, self.send
        self.put = put
        return await super().__aenter__()

    async def send(self, message):
        self.reads -= 1
        if self.reads < 0:
            await self.going.wait()
        await self.put(message)


async def test_a_stream_whose_reader_waits_keeps_few_frames(handler, info):
    async with Slow(handler(), f"/tasks/{info.uuid}/events/") as exchange:
        told = Events(exchange)
        await told.until("snapshot")
        (follower,) = get_hub()._followers[info.uuid]
        for number in range(60):
            await later(say)(info, str(number) + "x" * 40_000)
            assert follower._characters <= 2**21
        exchange.going.set()
        await later(end)(info)
        await told.until("finished")
    assert [int(message.rstrip("x")) for message in messages(told.frames)] == list(range(60))


async def test_a_client_that_goes_away_while_the_server_waits_for_it_leaves_nothing(handler, info):
    async with Slow(handler(), f"/tasks/{info.uuid}/events/") as exchange:
        await Events(exchange).until("snapshot")
        await later(say)(info, "a")
        await until(lambda: exchange.reads < 0)
        exchange.leave()
        await until(nothing_is_left)


# Middleware, and servers without an event loop


class SyncOnly:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        User.objects.exists()
        response = self.get_response(request)
        User.objects.exists()
        return response


@pytest.mark.parametrize("middleware", [["SyncOnly"], ALL_OF_DJANGOS, ["SyncOnly", *ALL_OF_DJANGOS]])
async def test_middleware_of_each_kind_lets_events_through_at_once(handler, info, middleware):
    async with stream(handler(*middleware), info.uuid, Accept_Encoding="gzip", Accept_Language="de") as told:
        await told.until("snapshot")
        await later(say)(info, "text " * 1_000)
        await told.until("message")
        assert told.exchange.headers["cache-control"] == "no-store"
        assert "content-length" not in told.exchange.headers
        assert "etag" not in told.exchange.headers
        await later(end)(info)
        await told.until("finished")
    await until(nothing_is_left)


async def test_a_stream_is_no_part_of_the_transaction_of_its_request(handler, info):
    before, connection.settings_dict["ATOMIC_REQUESTS"] = connection.settings_dict["ATOMIC_REQUESTS"], True
    try:
        async with stream(handler(*LOGIN), info.uuid) as told:
            await told.until("snapshot")
            await later(say)(info, "a")
            await later(end)(info)
            await told.until("finished")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = before


def test_under_wsgi_events_come_as_they_happen(info):
    response = Client().get(f"/tasks/{info.uuid}/events/")
    parts = iter(response.streaming_content)
    assert b"event: snapshot" in next(parts)
    assert wait_for(lambda: events.get_events()._feeds.get(info.uuid))
    say(info, "a")
    assert b"event: message" in next(parts)
    end(info)
    assert b"event: finished" in next(parts)
    assert next(parts, None) is None
    response.close()
    assert info.uuid not in events.get_events()._feeds


def test_under_wsgi_a_client_that_goes_away_leaves_nothing(info):
    response = Client().get(f"/tasks/{info.uuid}/events/")
    parts = iter(response.streaming_content)
    next(parts)
    wait_for(lambda: events.get_events()._feeds.get(info.uuid))
    before = threading.active_count()
    response.close()
    assert info.uuid not in events.get_events()._feeds
    assert threading.active_count() <= before


async def test_djangos_async_client_reads_a_stream(info):
    response = await AsyncClient().get(f"/tasks/{info.uuid}/events/")
    parts = aiter(response.streaming_content)
    assert b"event: snapshot" in await anext(parts)
    await later(end)(info)
    assert b"event: finished" in await anext(parts)
    assert await anext(parts, None) is None
    await until(nothing_is_left)


async def test_a_fault_is_logged_and_the_client_told_to_try_again(handler, info, monkeypatch, caplog):
    monkeypatch.setattr("taskapi.events.following._read", lambda *args: 1 / 0)
    with caplog.at_level(logging.ERROR):
        told = await whole(handler(), info.uuid)
    assert told.frames[0]["code"] == "unavailable"
    assert "division" not in json.dumps(told.frames)
    assert "ZeroDivisionError" in caplog.text
