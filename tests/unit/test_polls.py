"""The short road of a poll: nothing that a project's middleware does or sees is another than on Django's own road."""

import asyncio
import contextvars
import threading
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.core.signals import request_finished, request_started
from django.db import connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.utils import timezone, translation

from taskapi.models import TaskInfo
from taskapi.views import polls
from tests.project.urls import urlpatterns as projects
from tests.support.asgi import Exchange, get
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__), pytest.mark.usefixtures("queue")]

ROAD = "taskapi-poll"  # how the threads of the road are called
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOCALE = "django.middleware.locale.LocaleMiddleware"

seen: list = []  # what middleware and views have seen
caller: contextvars.ContextVar = contextvars.ContextVar("caller", default="nobody")


def thread():
    return threading.current_thread().name.rpartition("_")[0]


# The project


class Outer:
    """Notes each call of a middleware that Django makes."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        seen.append(f"{type(self).__name__} in")
        response = self.get_response(request)
        seen.append(f"{type(self).__name__} out")
        response[f"X-{type(self).__name__}"] = thread()
        return response

    def process_view(self, request, view, args, kwargs):
        seen.append(f"{type(self).__name__} view {request.resolver_match.url_name} {kwargs['uuid']}")

    def process_template_response(self, request, response):
        seen.append(f"{type(self).__name__} renders")
        return response

    def process_exception(self, request, exception):
        seen.append(f"{type(self).__name__} {exception!r}")


class Inner(Outer):
    """Also uses sessions and cookies."""

    def __call__(self, request):
        request.session["polls"] = request.session.get("polls", 0) + 1
        response = super().__call__(request)
        response.set_cookie("flavour", "oat")
        return response


class Where:
    """Notes the thread, and what is active in it."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        seen.append((thread(), translation.get_language(), timezone.get_current_timezone_name(), caller.get()))
        if "activate" in request.GET:
            translation.activate("de")
            timezone.activate("Asia/Tokyo")
            caller.set("somebody")
        return self.get_response(request)


class Failing:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        raise ZeroDivisionError


class FailingView(Failing):
    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        raise ZeroDivisionError


class Mending(FailingView):
    def process_view(self, request, view, args, kwargs):
        return None

    def process_exception(self, request, exception):
        return HttpResponse("mended", status=418)


class Gated:
    """Waits until the test opens the gate."""

    gate = threading.Event()

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        seen.append(thread())
        assert Gated.gate.wait(20)
        return self.get_response(request)


class AsyncOnly:
    """Uses something that belongs to the server's event loop, as a client with a pool of connections does."""

    sync_capable, async_capable = False, True

    def __init__(self, get_response):
        self.get_response = get_response
        self._is_coroutine = asyncio.coroutines._is_coroutine

    async def __call__(self, request):
        seen.append(asyncio.get_running_loop())
        return await self.get_response(request)


class Streaming:
    """Answers with a stream in place of each body."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        return StreamingHttpResponse(self.parts(response), headers=dict(response.items()), status=response.status_code)

    async def parts(self, response):
        yield response.content[:10]
        yield response.content[10:]


class Untidy:
    """Leaves something in its connection to the database."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA cache_size")
            seen.append((connection.in_atomic_block, *cursor.fetchone()))
            if "set" in request.GET:
                cursor.execute("PRAGMA cache_size = 77")
        if "open" in request.GET:
            transaction.atomic().__enter__()
        return self.get_response(request)


async def slow_page(request, uuid):
    seen.append(asyncio.get_running_loop())
    return HttpResponse("a page of the project")


def streaming_page(request, uuid):
    seen.append(thread())

    async def parts():
        yield "a "
        yield "stream"

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("shop/tasks/<uuid:uuid>/", slow_page),
    path("stream/tasks/<uuid:uuid>/", streaming_page),
    path("api/v1/", include("taskapi.urls")),
    *projects,
]


# The tests


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()
    Gated.gate.clear()
    yield
    Gated.gate.set()


@pytest.fixture
def info():
    return TaskInfo.objects.create(task="nothing", status="running", attempt=1, seq=7)


async def poll(handler, info, query="", **options):
    return await get(handler, f"/tasks/{info.uuid}/{query}", **options)


async def test_all_middleware_of_the_project_is_called_as_ever(handler, info):
    project = handler(SESSIONS, "Outer", "Inner")
    short = await poll(project, info)
    on_the_road, seen[:] = list(seen), []
    ever = await poll(project, info, headers={"Prefer": "nothing"})  # which is answered on Django's own road
    assert on_the_road == seen == [
        "Outer in", "Inner in", f"Outer view run {info.uuid}", f"Inner view run {info.uuid}",
        "Inner renders", "Outer renders", "Inner out", "Outer out",
    ]  # fmt: skip
    assert (short.headers.pop("x-outer"), short.headers.pop("x-inner")) == (ROAD, ROAD)
    assert (ever.headers.pop("x-outer"), ever.headers.pop("x-inner")) != (ROAD, ROAD)
    assert (short.status, short.headers, short.text) == (ever.status, ever.headers, ever.text)
    assert short.cookies == ever.cookies == ["flavour", "sessionid"]


async def test_a_session_goes_on_from_poll_to_poll(handler, info):
    project = handler(SESSIONS, "Inner")
    first = await poll(project, info)
    assert first.cookie.startswith("sessionid=")
    for _ in range(3):
        await poll(project, info, headers={"Cookie": first.cookie})
    (session,) = [session async for session in Session.objects.all()]
    assert session.get_decoded() == {"polls": 4}


async def test_a_request_is_begun_and_ended_once_for_djangos_signals(handler, info):
    heard = []

    def begun(scope, **_):
        heard.append(("begun", scope["path"], thread()))

    def ended(**_):
        heard.append(("ended", thread()))

    request_started.connect(begun)
    request_finished.connect(ended)
    try:
        await poll(handler(), info)
    finally:
        request_started.disconnect(begun)
        request_finished.disconnect(ended)
    assert heard == [("begun", f"/tasks/{info.uuid}/", ROAD), ("ended", ROAD)]


async def test_what_one_request_activates_is_not_there_for_the_next(handler, info, monkeypatch):
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    project = handler("Where")
    for query in ("?activate", "", "?activate", ""):
        await poll(project, info, query)
    assert seen == [(ROAD, "en-us", "UTC", "nobody")] * 4


async def test_what_the_server_knows_of_a_request_is_known_on_the_road(handler, info):
    """As the name of a trace, which an ASGI middleware around Django sets in a context variable."""
    project = handler("Where")

    async def outer(scope, receive, send):
        caller.set(scope["query_string"].decode())
        await project(scope, receive, send)

    await poll(outer, info, "?ann")
    await poll(outer, info, "?bob")
    assert [name for *_, name in seen] == ["ann", "bob"]
    assert {name for name, *_ in seen} == {ROAD}


async def test_each_request_has_the_language_that_it_asks_for(handler, info, monkeypatch):
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    project = handler(LOCALE, "Where")
    for language in ("de", "fr", "pt-br"):
        answer = await poll(project, info, headers={"Accept-Language": language})
        assert answer.headers["content-language"] == language
    await poll(project, info)
    assert [language for _, language, *_ in seen] == ["de", "fr", "pt-br", "en"]


@pytest.mark.parametrize("name", ["Failing", "FailingView"])
async def test_a_middleware_that_fails_is_answered_as_ever(handler, info, name):
    project = handler(name)
    short = await poll(project, info)
    ever = await poll(project, info, headers={"Prefer": "nothing"})
    assert (short.status, short.text) == (ever.status, ever.text)
    assert short.status == 500


async def test_a_middleware_may_answer_an_exception_of_a_view(handler, info, monkeypatch):
    monkeypatch.setattr("taskapi.views.run.messages_known", lambda request: 1 / 0)
    project = handler("Mending", "Outer")
    answer = await poll(project, info)
    assert (answer.status, answer.text) == (418, "mended")
    assert any("ZeroDivisionError" in what for what in seen)
    assert answer.headers["x-outer"] == ROAD


async def test_async_middleware_is_called_on_the_servers_event_loop(handler, info):
    answer = await poll(handler(SESSIONS, "AsyncOnly"), info)
    assert (answer.status, seen) == (200, [asyncio.get_running_loop()])


@pytest.mark.parametrize("scope", [{}, {"root_path": "/behind"}])
async def test_the_road_is_there_under_each_prefix(handler, info, settings, scope):
    project = handler("Outer")
    before = scope.get("root_path", "")
    for prefix in ("", "/api/v1"):
        answer = await get(project, f"{before}{prefix}/tasks/{info.uuid}/", **scope)
        assert (answer.status, answer.headers["x-outer"]) == (200, ROAD)
    settings.FORCE_SCRIPT_NAME = "/forced"
    answer = await get(project, f"/forced/tasks/{info.uuid}/")
    assert (answer.status, answer.headers["x-outer"]) == (200, ROAD)
    answer = await get(project, f"/nowhere/tasks/{info.uuid}/")
    assert answer.status == 404


async def test_pages_of_the_project_at_such_a_path_are_left_to_django(handler, info):
    project = handler()
    answer = await get(project, f"/shop/tasks/{info.uuid}/")
    assert (answer.text, seen) == ("a page of the project", [asyncio.get_running_loop()])
    answer = await get(project, f"/stream/tasks/{info.uuid}/")
    assert answer.text == "a stream"
    assert ROAD not in seen


async def test_a_middleware_may_answer_with_a_stream(handler, info):
    closed = []

    def ended(**_):
        closed.append(thread())

    project = handler("Streaming")
    request_finished.connect(ended)
    try:
        answer = await poll(project, info)
    finally:
        request_finished.disconnect(ended)
    assert answer.text.startswith('{"uuid":')
    assert answer.text.endswith("}")
    assert len(closed) == 1


async def test_the_log_of_queries_does_not_grow_in_debug_mode(handler, info, settings, monkeypatch):
    settings.DEBUG = True
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    project = handler()
    for _ in range(3):
        await poll(project, info)
    logged = await asyncio.get_running_loop().run_in_executor(project._threads, lambda: len(connection.queries_log))
    assert logged <= 1


@pytest.mark.parametrize("query", ["?open", "?set"])
async def test_what_middleware_leaves_in_a_connection_is_not_there_for_the_next_poll(handler, info, monkeypatch, query):
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    project = handler("Untidy")
    for again in (query, "", query, ""):
        answer = await poll(project, info, again)
        assert answer.status == 200
    assert seen == [seen[0]] * 4
    assert seen[0][0] is False
    assert seen[0][1] != 77


async def test_a_connection_is_kept_from_poll_to_poll(handler, info, monkeypatch):
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    project = handler(SESSIONS, "Inner", AUTHENTICATION)
    kept = set()
    for _ in range(3):
        assert (await poll(project, info)).status == 200
        kept.add(await asyncio.get_running_loop().run_in_executor(project._threads, lambda: connection.connection))
    assert len(kept - {None}) == 1


async def test_a_burst_of_polls_takes_no_more_threads_than_the_road_has(handler, info, monkeypatch):
    """With a thread and a connection each, they would take more connections than a PostgreSQL has."""
    monkeypatch.setattr(polls, "PATIENCE", 60.0)
    project = handler("Where")
    answers = await asyncio.gather(*(poll(project, info) for _ in range(100)))
    assert [answer.status for answer in answers] == [200] * 100
    assert {name for name, *_ in seen} == {ROAD}
    assert len(project._threads._threads) <= max(polls.THREADS, polls.THREADS_FOR_SQLITE)


@pytest.mark.parametrize("threads", [1, 4])
async def test_if_middleware_is_slow_polls_go_the_way_of_all_requests(handler, info, monkeypatch, threads):
    monkeypatch.setattr(polls, "PATIENCE", 0.02)
    monkeypatch.setattr(polls, "_how_many_threads", lambda: threads)
    project = handler("Gated")
    going = [asyncio.create_task(poll(project, info)) for _ in range(threads + 4)]
    await until(lambda: len(seen) == threads + 4)  # nothing waits for a thread for long
    assert seen.count(ROAD) == threads
    monkeypatch.setattr(polls, "PATIENCE", 60.0)
    going.append(asyncio.create_task(poll(project, info)))
    await until(lambda: len(seen) == threads + 5)  # nor at all, after that
    Gated.gate.set()
    assert {answer.status for answer in await asyncio.gather(*going)} == {200}
    monkeypatch.setattr(project, "_closed_until", 0.0)
    await poll(project, info)
    assert seen[-1] == ROAD


async def test_a_poll_whose_client_is_gone_takes_no_thread(handler, info, monkeypatch):
    """The server gives up on a request whose client is gone; the thread that answers it goes on."""
    monkeypatch.setattr(polls, "_how_many_threads", lambda: 1)
    monkeypatch.setattr(polls, "PATIENCE", 60.0)
    project = handler("Gated")
    exchanges = [Exchange(project, f"/tasks/{info.uuid}/") for _ in range(3)]
    for exchange in exchanges:
        await exchange.__aenter__()
    await until(lambda: len(seen) == 1)
    for exchange in exchanges:
        await exchange.cut()
    Gated.gate.set()
    assert (await poll(project, info)).status == 200
    assert seen == [ROAD] * 2


async def test_a_body_is_there_for_middleware_that_reads_it(handler, info, monkeypatch):
    def read(self, request):
        seen.append(request.body)
        return self.get_response(request)

    monkeypatch.setattr(Outer, "__call__", read)
    answer = await poll(handler("Outer"), info, body=b"signed", headers={"Content-Length": "6"})
    assert (answer.status, seen[0]) == (200, b"signed")


async def test_a_client_that_says_it_sends_no_body_takes_the_short_road(handler, info):
    answer = await poll(handler("Outer"), info, headers={"Content-Length": "0"})
    assert (answer.status, answer.headers["x-outer"]) == (200, ROAD)


async def test_a_run_that_is_not_there_is_answered_alike(handler):
    project = handler()
    short, ever = [await get(project, f"/tasks/{uuid4()}/", headers=headers) for headers in ({}, {"Prefer": "x"})]
    assert (short.status, short.text) == (ever.status, ever.text) == (404, short.text)


async def test_what_is_not_http_is_refused_with_djangos_sentence(handler):
    with pytest.raises(ValueError, match="can only handle ASGI/HTTP connections, not lifespan"):
        await handler()({"type": "lifespan"}, None, None)


async def test_a_client_that_is_gone_at_once_harms_nothing(handler, info):
    project = handler()
    for _ in range(5):
        async with Exchange(project, f"/tasks/{info.uuid}/") as exchange:
            exchange.leave()
    assert (await poll(project, info)).status == 200


async def test_heads_and_other_methods_go_the_way_of_all_requests(handler, info):
    project = handler("Outer")
    for method, status in (("HEAD", 200), ("POST", 405), ("OPTIONS", 200)):
        async with Exchange(project, f"/tasks/{info.uuid}/", method=method) as exchange:
            assert await exchange.begin() == status
        assert exchange.headers["x-outer"] != ROAD


async def test_a_query_of_middleware_is_not_shared_with_the_database_thread(handler, info):
    """Each thread of the road keeps one connection, which no other thread uses."""
    project = handler()
    await asyncio.gather(*(poll(project, info) for _ in range(10)))
    assert await sync_to_async(TaskInfo.objects.count)() == 1
