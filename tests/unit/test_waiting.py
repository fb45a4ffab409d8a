"""`Prefer: wait=S`: who waits is answered once there is something to say, and costs nothing meanwhile."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from django.utils import timezone, translation
from rest_framework.permissions import BasePermission

from taskapi import events, runs
from taskapi.events import hub as hubs
from taskapi.events.hub import get_hub
from taskapi.events.in_process import InProcessEvents
from taskapi.models import TaskInfo
from taskapi.protocol import Report, State
from taskapi.views import waiting as answers
from taskapi.views.waiting import until_final
from tests.support.asgi import Exchange, get
from tests.support.waiting import until, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("in_process", "queue")]

LONG = "wait=60"
AUTHENTICATION = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def in_process():
    with events.using(InProcessEvents()) as port:
        yield port


@pytest.fixture
def info():
    return TaskInfo.objects.create(task="nothing", status="running", attempt=1, seq=7, progress=1)


def change(info, *, publish=True, **fields):
    """Write what an attempt writes, and publish it."""
    before = State(info.uuid, info.seq, 1)
    for name, value in {"seq": info.seq + 4, **fields}.items():
        setattr(info, name, value)
    info.save()
    if publish:
        events.publish_from_thread(info.uuid, Report.between(before, info, info.message_count, []))


def end(info, *, publish=True):
    change(info, publish=False, status="succeeded", outputs={}, finished=timezone.now())
    if publish:
        events.publish_from_thread(info.uuid, runs.final_report(info))


async def begun(*infos, count=1):
    """Return once so many wait for each of these runs, and have seen it."""

    def are_there():
        followers = [get_hub()._followers.get(info.uuid, ()) for info in infos]
        return all(len(waiters) == count and all(one.known for one in waiters) for waiters in followers)

    await until(are_there)


@asynccontextmanager
async def waiting(application, info, prefer=LONG, tag=None, **headers):
    """A request that waits."""
    known = {} if tag is None else {"If-None-Match": tag}
    sent = {"Prefer": prefer, **known, **headers}
    before = len(get_hub()._followers.get(info.uuid, ()))
    async with Exchange(application, f"/tasks/{info.uuid}/", headers=sent) as exchange:
        await begun(info, count=before + 1)
        assert not exchange.is_answered
        yield exchange


def nothing_is_left():
    """Whether nobody waits any more, and nothing of it is left."""
    hub = get_hub()
    return hub._users == 0 and hub._followers == {} and hub._chores == []


# What is waited for


async def test_without_a_tag_the_end_is_waited_for(handler, info):
    async with waiting(handler(), info) as exchange:
        for number in range(3):
            await sync_to_async(change)(info, progress=number + 2)
        await sync_to_async(info.cancel)()
        assert not exchange.is_answered
        info.cancel_requested = True
        await sync_to_async(end)(info)
        assert await exchange.begin() == 200
        assert exchange.headers["preference-applied"] == LONG
        assert (await exchange.json())["status"] == "succeeded"
        assert "retry-after" not in exchange.headers
    await until(nothing_is_left)


CHANGES = {
    "progress": lambda info: change(info, progress=2),
    "target": lambda info: change(info, target=2),
    "the end": end,
    "a cancel request": lambda info: info.cancel(),
    "a message": lambda info: change(info, message_count=1),
    "handed back": lambda info: change(info, status="pending"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_with_a_tag_any_change_is_waited_for(handler, info, name):
    async with waiting(handler(), info, tag='"7"') as exchange:
        await sync_to_async(CHANGES[name])(info)
        assert await exchange.begin() == 200
        assert exchange.headers["etag"] != '"7"'
        assert exchange.headers["preference-applied"] == LONG
    await until(nothing_is_left)


@pytest.mark.parametrize("tag", ["*", 'W/"7"', '"6", "7"'])
async def test_each_form_of_a_tag_is_known(handler, info, tag):
    async with waiting(handler(), info, tag=tag) as exchange:
        await sync_to_async(change)(info)
        assert await exchange.begin() == (304 if tag == "*" else 200)


async def test_a_run_that_is_deleted_is_not_found_at_once(handler, info):
    async with AsyncExitStack() as stack:
        project = handler()
        waiters = [await stack.enter_async_context(waiting(project, info, tag=tag)) for tag in (None, '"7"')]
        await TaskInfo.objects.all().adelete()
        get_hub()._catch_up(info.uuid)
        for exchange in waiters:
            assert await exchange.begin() == 404
    await until(nothing_is_left)


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
@pytest.mark.parametrize("tag", [None, '"7"', '"6"', "*"])
async def test_a_final_run_is_answered_at_once(handler, info, status, tag):
    await TaskInfo.objects.aupdate(status=status)
    headers = {"Prefer": "wait=1000"} | ({} if tag is None else {"If-None-Match": tag})
    answer = await get(handler(), f"/tasks/{info.uuid}/", headers)
    assert answer.status == (304 if tag in ('"7"', "*") else 200)
    assert answer.headers["preference-applied"] == LONG


@pytest.mark.parametrize("tag", ['"6"', "", "nonsense", '"7c"', 'W/"8"'])
async def test_a_client_that_is_behind_is_answered_at_once(handler, info, tag):
    answer = await get(handler(), f"/tasks/{info.uuid}/", {"Prefer": LONG, "If-None-Match": tag})
    assert (answer.status, answer.headers["etag"], answer.headers["preference-applied"]) == (200, '"7"', LONG)


async def test_after_the_time_the_run_is_answered_as_it_is(handler, info):
    began = time.monotonic()
    headers = {"Prefer": "wait=1"}
    whole, known = await asyncio.gather(
        get(handler(), f"/tasks/{info.uuid}/", headers),
        get(handler(), f"/tasks/{info.uuid}/", headers | {"If-None-Match": '"7"'}),
    )
    assert time.monotonic() - began >= 1
    assert (whole.status, known.status, known.text) == (200, 304, "")
    for answer in (whole, known):
        assert (answer.headers["preference-applied"], answer.headers["retry-after"]) == ("wait=1", "1")
        assert answer.headers["etag"] == '"7"'


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [
        ("wait=5", 5), ('wait="5"', 5), ("WAIT=5", 5), (" wait = 5 ", 5), ("wait=0", 0), ("wait=60", 60),
        ("wait=61", 60), ("wait=999999999", 60), ("respond-async, wait=5", 5), ("wait=5, respond-async", 5),
        ("wait=5;foo=bar", 5), ("wait=5; foo", 5), ("wait=5, wait=9", 5), ("return=minimal,wait=7", 7),
        ("wait", None), ("wait=", None), ("wait=x", None), ("wait=-1", None), ("wait=1.5", None), ("wait=5s", None),
        ('wait="5', None), ("waiting=5", None), ("await=5", None), ("", None), (",", None), ("=5", None),
        ("wait==5", None), ("respond-async", None), ("é", None), ("wait=²", None), ("wait=5 5", None),
        ("," * 5_000, None), ("wait=" + "9" * 5_000, None),
    ],
)  # fmt: skip
def test_a_preference_is_kept_or_ignored(info, prefer, kept):
    TaskInfo.objects.update(status="succeeded", outputs={}, finished=timezone.now())
    answer = Client().get(f"/tasks/{info.uuid}/", headers={"Prefer": prefer})
    assert (answer.status_code, answer.get("Preference-Applied")) == (200, None if kept is None else f"wait={kept}")


async def test_after_leaves_out_messages_at_the_end_of_the_wait(handler, info):
    async with Exchange(handler(), f"/tasks/{info.uuid}/?after=1", headers={"Prefer": LONG}) as exchange:
        await begun(info)
        for index, body in enumerate("ab"):
            await info.log.acreate(index=index, attempt=1, seq=8 + index, body=body)
        info.message_count = 2
        await sync_to_async(end)(info)
        assert (await exchange.json())["messages"] == ["b"]


async def test_what_is_wrong_is_told_before_the_wait(handler, info):
    project = handler()
    for path, status in ((f"/tasks/{info.uuid}/?after=x", 400), (f"/tasks/{uuid4()}/", 404)):
        answer = await get(project, path, {"Prefer": LONG})
        assert (answer.status, "preference-applied" in answer.headers) == (status, False)


# What is lost


async def test_an_end_whose_event_is_lost_is_found(handler, info, monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    async with AsyncExitStack() as stack:
        project = handler()
        waiters = [await stack.enter_async_context(waiting(project, info, tag=tag)) for tag in (None, '"7"')]
        await sync_to_async(end)(info, publish=False)
        for exchange in waiters:
            assert await exchange.begin() == 200


async def test_a_cancel_request_whose_event_is_lost_is_found(handler, info, monkeypatch):
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    async with waiting(handler(), info, tag='"7"') as exchange:
        await TaskInfo.objects.aupdate(cancel_requested=True)
        assert await exchange.begin() == 200
        assert exchange.headers["etag"] == '"7c"'


async def test_who_waits_while_the_database_goes_away_is_told_to_come_back(handler, info, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("the server closed the connection unexpectedly")

    async with AsyncExitStack() as stack:
        project = handler()
        waiters = [await stack.enter_async_context(waiting(project, info, tag=tag)) for tag in (None, '"7"')]
        monkeypatch.setattr("taskapi.events.waiting._read", away)
        monkeypatch.setattr("taskapi.store.rows.read", away)
        get_hub()._catch_up(info.uuid)
        for exchange in waiters:
            assert await exchange.begin() == 503
            assert exchange.headers["retry-after"] == "5"
    await until(nothing_is_left)


async def test_a_database_that_is_back_in_time_is_not_told_of(handler, info, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("the server closed the connection unexpectedly")

    async with waiting(handler(), info, tag='"7"') as exchange:
        monkeypatch.setattr("taskapi.events.waiting._read", away)
        get_hub()._catch_up(info.uuid)
        assert await exchange.begin() == 304


# Who waits


class Tenant:
    """Adds to a request what permissions look at."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.tenant = "oat"
        return self.get_response(request)


class OfTenant(BasePermission):
    def has_permission(self, request, view):
        return request.tenant == "oat" and request.resolver_match.url_name == "run"


class Bystander(BasePermission):
    """Changes its mind."""

    allows = True

    def has_permission(self, request, view):
        return Bystander.allows


@pytest.fixture
def ann():
    return User.objects.create(username="ann")


@pytest.fixture
def cookie(ann):
    client = Client()
    client.force_login(ann)
    return client.cookies.output(header="", attrs=[], sep=";").strip()


async def test_the_verdict_is_that_of_the_end_if_the_caller_logs_out_meanwhile(handler, info, ann, cookie):
    await TaskInfo.objects.aupdate(user=ann)
    async with AsyncExitStack() as stack:
        project = handler(*AUTHENTICATION)
        waiters = [
            await stack.enter_async_context(waiting(project, info, tag=tag, Cookie=cookie)) for tag in (None, '"7"')
        ]
        client = Client()
        client.cookies["sessionid"] = cookie.partition("=")[2]
        await sync_to_async(client.logout)()
        info.user = ann
        await sync_to_async(end)(info)
        for exchange in waiters:
            assert await exchange.begin() in (401, 403, 404)
            assert "outputs" not in await exchange.json()


async def test_a_user_who_is_deactivated_or_loses_a_permission_meanwhile_is_refused(
    handler, info, ann, cookie, settings
):
    settings.TASK_API_PERMISSIONS_CLASSES = [Bystander]
    project = handler(*AUTHENTICATION)
    async with waiting(project, info, Cookie=cookie) as exchange:
        Bystander.allows = False
        await sync_to_async(end)(info)
        status = await exchange.begin()
    Bystander.allows = True
    assert status == 403
    await TaskInfo.objects.aupdate(status="running", user=ann)
    info = await TaskInfo.objects.aget()
    async with waiting(project, info, Cookie=cookie) as exchange:
        await User.objects.aupdate(is_active=False)
        await sync_to_async(end)(info)
        assert await exchange.begin() in (401, 403, 404)


async def test_what_middleware_has_added_to_the_request_is_there_at_the_end(handler, info, settings):
    settings.TASK_API_PERMISSIONS_CLASSES = [OfTenant]
    async with waiting(handler("Tenant", *AUTHENTICATION), info) as exchange:
        await sync_to_async(end)(info)
        assert await exchange.begin() == 200


# What it costs


async def test_who_waits_holds_no_thread_and_leaves_nothing_behind(handler):
    infos = [await TaskInfo.objects.acreate(task="nothing", status="running", attempt=1, seq=7) for _ in range(40)]
    project = handler(*AUTHENTICATION)
    before = threading.active_count()
    tasks = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        exchanges = [Exchange(project, f"/tasks/{info.uuid}/", headers={"Prefer": LONG}) for info in infos]
        for exchange in exchanges:
            await stack.enter_async_context(exchange)
        await begun(*infos)
        await until(lambda: threading.active_count() <= before + 5)
        for exchange in exchanges[::2]:
            exchange.leave()
        await until(lambda: len(get_hub()._followers) == 20)
        for info in infos[1::2]:
            await sync_to_async(end)(info)
        for exchange in exchanges[1::2]:
            assert await exchange.begin() == 200
    await until(nothing_is_left)
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    await until(lambda: threading.active_count() <= before + 2)


@pytest.mark.parametrize("middleware", [[], ["SyncOnly"]])
async def test_a_server_that_ends_lets_go_of_who_waits(handler, info, middleware):
    """Or its process would wait for the thread of sync middleware, for ever."""
    before = threading.active_count()
    exchange = Exchange(handler(*middleware), f"/tasks/{info.uuid}/", headers={"Prefer": LONG})
    await exchange.__aenter__()
    await begun(info)
    await exchange.cut()
    await until(nothing_is_left)
    await until(lambda: threading.active_count() <= before + 1)


class Counting(BasePermission):
    """Counts how many are judged at the same time."""

    now = most = 0
    lock = threading.Lock()

    def has_permission(self, request, view):
        with Counting.lock:
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
        User.objects.exists()
        with Counting.lock:
            Counting.now -= 1
        return True


async def test_of_many_who_wait_for_one_run_few_are_answered_at_the_same_time(handler, info, settings, monkeypatch):
    """With a thread and a connection each, they would take more connections than a PostgreSQL has."""
    monkeypatch.setattr(answers, "AT_ONCE", 2)
    settings.TASK_API_PERMISSIONS_CLASSES = [Counting]
    project = handler(*AUTHENTICATION)
    async with AsyncExitStack() as stack:
        waiters = [await stack.enter_async_context(waiting(project, info)) for _ in range(30)]
        Counting.most = 0
        await sync_to_async(end)(info)
        for exchange in waiters:
            assert await exchange.begin() == 200
    assert Counting.most <= 2


# Middleware


class SyncOnly:
    """As most middleware of projects is."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        User.objects.exists()
        response = self.get_response(request)
        User.objects.exists()
        response["X-Sync"] = "only"
        return response


class Renders(SyncOnly):
    def process_template_response(self, request, response):
        response["X-Renders"] = "yes"
        response.set_cookie("rendered", response.data)
        return response

    def process_exception(self, request, exception):
        raise AssertionError(exception)


class Speaks(SyncOnly):
    def __call__(self, request):
        with translation.override("de"):
            return self.get_response(request)


@pytest.mark.parametrize(
    "middleware", [["SyncOnly"], ["Renders"], ["SyncOnly", "Renders"], ["django.middleware.gzip.GZipMiddleware"]]
)
async def test_middleware_of_each_kind_sees_the_answer(handler, info, middleware):
    async with waiting(handler(*middleware), info, tag='"7"', **{"Accept-Encoding": "gzip"}) as exchange:
        await sync_to_async(change)(info, progress=2)
        assert await exchange.begin() == 200
        assert ("x-sync" in exchange.headers) is ("gzip" not in middleware[0])
        assert ("x-renders" in exchange.headers) is ("Renders" in middleware)
        assert exchange.cookies == (["rendered"] if "Renders" in middleware else [])
    await until(nothing_is_left)


async def test_what_is_lost_is_found_though_who_came_first_has_gone(handler, info, monkeypatch):
    """Sync middleware ties what its request begins to its thread; what all requests share is not tied to it."""
    monkeypatch.setattr(hubs, "WATCH_INTERVAL", 0.02)
    other = await TaskInfo.objects.acreate(task="nothing", status="running", attempt=1, seq=7)
    project = handler("SyncOnly", "Speaks")
    async with Exchange(project, f"/tasks/{other.uuid}/", headers={"Prefer": LONG}) as first:
        await begun(other)
        async with waiting(project, info) as exchange:
            await sync_to_async(end)(other)
            assert await first.begin() == 200
            await first.body()
            first.leave()
            await first.task
            await sync_to_async(end)(info, publish=False)
            assert await exchange.begin() == 200


async def test_each_request_in_a_transaction_waits_outside_of_it(handler, info):
    before, connection.settings_dict["ATOMIC_REQUESTS"] = connection.settings_dict["ATOMIC_REQUESTS"], True
    try:
        async with waiting(handler(*AUTHENTICATION), info, tag='"7"') as exchange:
            await sync_to_async(change)(info, progress=2)  # on SQLite this would wait for a transaction
            assert await exchange.begin() == 200
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = before


# Without a server


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def follows(info):
    """Whether anybody of this process hears of the run: another loop's hub does."""
    return events.get_events()._feeds.get(info.uuid)


@pytest.mark.parametrize("tag", [None, '"7"'])
def test_under_wsgi_the_thread_of_the_request_waits(info, tag):
    answers = []

    def ask():
        known = {} if tag is None else {"If-None-Match": tag}
        answers.append(Client().get(f"/tasks/{info.uuid}/", headers={"Prefer": LONG} | known))

    thread = in_thread(ask)
    wait_for(lambda: follows(info))
    end(info)
    thread.join(20)
    (answer,) = answers
    assert (answer.status_code, answer["Preference-Applied"], answer.json()["status"]) == (200, LONG, "succeeded")


def test_under_wsgi_a_wait_ends_too(info):
    answer = Client().get(f"/tasks/{info.uuid}/", headers={"Prefer": "wait=1", "If-None-Match": '"7"'})
    assert (answer.status_code, answer["Preference-Applied"], answer.content) == (304, "wait=1", b"")


async def test_djangos_async_client_waits_like_any_other(info):
    asking = asyncio.create_task(AsyncClient().get(f"/tasks/{info.uuid}/", headers={"Prefer": LONG}))
    await begun(info)
    await sync_to_async(end)(info)
    answer = await asking
    assert (answer.status_code, answer["Preference-Applied"], answer.json()["status"]) == (200, LONG, "succeeded")


# Several runs


async def test_all_of_several_runs_are_waited_for():
    infos = [await TaskInfo.objects.acreate(task="nothing", status="running", attempt=1, seq=7) for _ in range(3)]
    going = asyncio.create_task(until_final(infos, 60)())
    for info in infos:
        await begun(info)
        assert not going.done()
        await sync_to_async(end)(info)
        await until(lambda info=info: info.uuid not in get_hub()._followers)
    async with asyncio.timeout(20):
        await going
    await until(nothing_is_left)
