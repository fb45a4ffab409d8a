"""The caller of a socket is checked again and again; if it has changed, the socket is closed."""

import asyncio
import json
from base64 import b64encode
from unittest.mock import ANY

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from taskapi.callers import caller as callers
from taskapi.callers import rounds
from taskapi.callers.caller import Caller
from taskapi.consumers.tasks import TaskConsumer
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task
from tests.support.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue", "memory_layer")]

PASSWORD = "secret"
TOKENS = {}  # the user's name by token


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter()}


class ByToken(BaseAuthentication):
    """Finds users by the tokens in TOKENS, and refuses other tokens."""

    def authenticate(self, request):
        name = request.headers.get("Authorization", "").removeprefix("Token ")
        if not name:
            return None
        if name not in TOKENS:
            raise AuthenticationFailed("No such token.")
        return User.objects.get(username=TOKENS[name]), name


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()
    TOKENS.clear()
    return settings


@pytest.fixture
def ann():
    return User.objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def bob():
    return User.objects.create_user("bob", password=PASSWORD)


ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]


@pytest.fixture(params=ENGINES)
def engine(request, settings, tmp_path):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    return request.param


def browser(user=None):
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def scope_of(client=None, **headers):
    cookies = client.cookies.output(header="", sep=";").strip() if client else ""
    headers = {"host": "testserver", "cookie": cookies} | headers
    return {
        "type": "websocket",
        "scheme": "ws",
        "path": "/tasks/ws/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value],
        "client": ["127.0.0.1", 50_000],
        "subprotocols": [],
    }


def basic(name):
    return {"authorization": "Basic " + b64encode(f"{name}:{PASSWORD}".encode()).decode()}


def deactivate(client, ann, bob):
    User.objects.filter(pk=ann.pk).update(is_active=False)


def delete(client, ann, bob):
    User.objects.filter(pk=ann.pk).delete()


def change_password(client, ann, bob):
    ann.set_password("another")
    ann.save()


def log_out(client, ann, bob):
    User.objects.update(is_staff=True)
    client.post("/admin/logout/")


def log_in_as_another(client, ann, bob):
    User.objects.update(is_staff=True)
    client.post("/admin/login/?next=/", {"username": "bob", "password": PASSWORD})


def nothing(client, ann, bob):
    pass


def save(client, ann, bob):
    ann.first_name = "Ann"
    ann.save()


def log_in_elsewhere(client, ann, bob):
    browser(ann)


CHANGES = [deactivate, delete, change_password, log_out, log_in_as_another]


@pytest.mark.parametrize("change", CHANGES)
def test_who_is_not_who_he_was_is_found_out_whatever_keeps_the_sessions(engine, change, ann, bob):
    client = browser(ann)
    caller = Caller.of_socket(scope_of(client))
    assert caller.may_change
    assert caller.revalidate()
    change(client, ann, bob)
    assert not caller.revalidate()
    assert caller.is_over
    assert not caller.revalidate(), "it stays over"


@pytest.mark.parametrize("change", [nothing, save, log_in_elsewhere])
def test_who_is_who_he_was_stays(engine, change, ann, bob):
    caller = Caller.of_socket(scope_of(browser(ann)))
    change(None, ann, bob)
    assert caller.revalidate()
    assert caller.view("GET").request.user == ann


@pytest.mark.parametrize("change", [deactivate, delete, change_password])
def test_a_password_in_the_handshake_is_not_hashed_again(change, ann, bob, monkeypatch):
    caller = Caller.of_socket(scope_of(**basic("ann")))
    monkeypatch.setattr("django.contrib.auth.models.User.check_password", None)
    assert caller.revalidate()
    change(None, ann, bob)
    assert not caller.revalidate()


def test_a_token_in_the_handshake_is_asked_for_again(project, ann):
    project.TASK_API_AUTHENTICATION_CLASSES = [ByToken]
    TOKENS["t"] = "ann"
    caller = Caller.of_socket(scope_of(authorization="Token t"))
    ann.set_password("another")
    ann.save()
    assert caller.revalidate(), "a token is valid after a change of the password, as in REST"
    del TOKENS["t"]
    assert not caller.revalidate()


def test_a_token_that_is_another_users_by_now_is_not_his(project, ann, bob):
    project.TASK_API_AUTHENTICATION_CLASSES = [ByToken]
    TOKENS["t"] = "ann"
    caller = Caller.of_socket(scope_of(authorization="Token t"))
    TOKENS["t"] = "bob"
    assert not caller.revalidate()
    assert caller._authentication.user == ann, "earlier frames are not served as the other user"


def test_a_user_may_be_saved_in_a_transaction_by_hand_while_it_has_a_socket(ann):
    caller = Caller.of_socket(scope_of(browser(ann)))
    transaction.set_autocommit(False)
    try:
        ann.save()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert caller.is_due


def test_nobody_without_a_session_is_never_looked_at(project):
    caller = Caller.of_socket(scope_of())
    assert not caller.may_change
    assert not caller.is_due
    stale = Client()
    stale.cookies["sessionid"] = "gone" * 8
    assert not Caller.of_socket(scope_of(stale)).may_change


def test_nobody_with_a_session_changes_as_its_browser_logs_in(ann):
    client = browser()
    session = client.session
    session["cart"] = [1]
    session.save()
    caller = Caller.of_socket(scope_of(client))
    assert caller.may_change
    assert caller.revalidate()
    User.objects.update(is_staff=True)
    client.post("/admin/login/?next=/", {"username": "ann", "password": PASSWORD})
    caller.is_over = False  # as in another process: it gets no signal
    assert not caller.revalidate()


def test_what_a_caller_may_do_is_judged_by_the_user_as_he_is_now(ann):
    caller = Caller.of_socket(scope_of(browser(ann)))
    User.objects.update(is_staff=True)
    assert not caller.view("GET").request.user.is_staff
    assert caller.revalidate()
    assert caller.view("GET").request.user.is_staff


def test_looking_neither_ends_the_session_of_a_browser_nor_gives_it_another_key(settings, ann):
    client = browser(ann)
    before = client.cookies["sessionid"].value
    caller = Caller.of_socket(scope_of(client))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "newer", [settings.SECRET_KEY]
    assert caller.revalidate()
    assert Session.objects.filter(session_key=before).exists()
    User.objects.update(password="changed")
    assert not caller.revalidate()
    assert Session.objects.filter(session_key=before).exists(), "the next request of the page ends it"


@pytest.mark.parametrize("change", [log_out, log_in_as_another])
def test_another_process_finds_it_out_by_looking(change, ann, bob):
    client = browser(ann)
    caller = Caller.of_socket(scope_of(client))
    change(client, ann, bob)
    caller.is_over = caller.is_doubtful = False
    assert not caller.revalidate()


async def test_who_was_found_by_an_asgi_middleware_is_looked_at_again(ann, bob):
    seen = {}

    async def application(scope, receive, send):
        seen["caller"] = await sync_to_async(Caller.of_socket)(scope)

    client = await sync_to_async(browser)(ann)
    await AuthMiddlewareStack(application)(scope_of(client), None, None)
    caller = seen["caller"]
    assert await sync_to_async(caller.revalidate)()
    await sync_to_async(client.logout)()
    assert not await sync_to_async(caller.revalidate)()


@pytest.mark.parametrize("change", [nothing, deactivate, delete, change_password])
def test_a_user_without_a_session_that_an_asgi_middleware_has_found_is_looked_at_again(change, ann, bob):
    caller = Caller.of_socket(scope_of() | {"user": ann})
    assert caller.view("GET").request.user == ann
    change(None, User.objects.get(pk=ann.pk), bob)
    assert caller.revalidate() is (change is nothing)


def test_a_caller_is_believed_for_a_while_and_doubted_at_once_when_this_process_hears_of_a_change(ann, bob):
    client = browser(ann)
    caller, other = Caller.of_socket(scope_of(client)), Caller.of_socket(scope_of(browser(bob)))
    assert not caller.is_due
    ann.save()
    assert caller.is_due
    assert not other.is_due
    with CaptureQueriesContext(connection) as queries:
        assert caller.revalidate()
    assert len(queries) == 2, "the session and the user"
    assert not caller.is_due
    client.logout()
    assert caller.is_due
    caller.judged -= callers.JUDGED_FOR + 1
    other.judged -= callers.JUDGED_FOR + 1
    assert other.is_due


# Sockets


class Socket:
    """The client's end of a socket."""

    def __init__(self, scope):
        self.sent, self.received = [], asyncio.Queue()
        self.serving = asyncio.create_task(TaskConsumer()(scope, self.received.get, self._send))
        self.received.put_nowait({"type": "websocket.connect"})

    async def _send(self, message):
        self.sent.append(message)

    def say(self, **frame):
        self.received.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    @property
    def frames(self):
        return [json.loads(message["text"]) for message in self.sent if "text" in message]

    @property
    def codes(self):
        return [message["code"] for message in self.sent if message["type"] == "websocket.close"]

    async def answer(self, **frame):
        ref = str(len(self.sent))
        self.say(**frame, ref=ref)
        return await until(lambda: next((answer for answer in self.frames if answer.get("ref") == ref), None))

    async def end(self):
        self.received.put_nowait({"type": "websocket.disconnect"})
        await asyncio.wait_for(self.serving, 20)


@pytest.fixture
async def connect():
    sockets = []

    async def open_socket(client=None, **headers):
        socket = Socket(await sync_to_async(scope_of)(client, **headers))
        sockets.append(socket)
        await until(lambda: socket.sent)
        return socket

    yield open_socket
    for socket in sockets:
        await socket.end()


@pytest.fixture
def no_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "PAUSE", 3600)


RUN = {"type": "run", "task": "add", "inputs": {"a": 1}}


@pytest.mark.usefixtures("no_rounds")
@pytest.mark.parametrize("change", CHANGES)
async def test_the_next_frame_of_somebody_else_is_not_served_and_the_socket_closed(connect, ann, bob, change, engine):
    client = await sync_to_async(browser)(ann)
    socket = await connect(client)
    assert (await socket.answer(**RUN))["type"] == "accepted"
    assert (await TaskInfo.objects.select_related("user").aget()).user == ann
    await sync_to_async(change)(client, ann, bob)
    for caller in list(callers._callers):
        caller.judged -= callers.JUDGED_FOR + 1  # some time later
    known = len(socket.frames)
    before = await TaskInfo.objects.acount()  # none, if the user was deleted
    for _ in range(3):
        socket.say(**RUN, ref="late")
    await until(lambda: socket.codes)
    socket.say(type="ping", ref="late")
    await socket.end()
    assert socket.codes == [4401]
    assert len(socket.frames) == known
    assert await TaskInfo.objects.acount() == before


@pytest.mark.usefixtures("no_rounds")
async def test_in_the_process_that_logs_a_user_out_not_even_the_very_next_frame_is_served(connect, ann, bob):
    client = await sync_to_async(browser)(ann)
    socket = await connect(client)
    await sync_to_async(client.force_login)(bob)
    await sync_to_async(client.logout)()
    await sync_to_async(ann.save)()
    socket.say(**RUN, ref="r")
    await until(lambda: socket.codes or socket.frames)
    assert socket.codes == [4401]
    assert not await TaskInfo.objects.aexists()


async def test_a_quiet_socket_is_closed_as_well_and_others_are_not(connect, ann, bob, monkeypatch):
    monkeypatch.setattr(rounds, "PAUSE", 0.02)
    monkeypatch.setattr(callers, "JUDGED_FOR", 0.0)
    gone, anns = await sync_to_async(browser)(ann), await sync_to_async(browser)(ann)
    bobs = await sync_to_async(browser)(bob)
    quiet, other, bystander, nobody = [await connect(client) for client in (gone, anns, bobs, None)]
    run = (await quiet.answer(**RUN))["task"]["uuid"]
    await other.answer(type="subscribe", uuid=run)
    await sync_to_async(gone.logout)()
    await until(lambda: quiet.codes)
    assert quiet.codes == [4401]
    await User.objects.filter(pk=bob.pk).aupdate(is_active=False)
    await until(lambda: bystander.codes)
    assert (await other.answer(type="ping"))["type"] == "pong"
    assert (await nobody.answer(type="ping"))["type"] == "pong"
    assert other.codes == nobody.codes == []
    assert await TaskInfo.objects.acount() == 1


async def test_a_socket_that_is_being_closed_is_told_nothing_more_of_its_runs(connect, ann, monkeypatch):
    client = await sync_to_async(browser)(ann)
    socket = await connect(client)
    run = (await socket.answer(**RUN))["task"]["uuid"]
    await User.objects.filter(pk=ann.pk).aupdate(is_active=False)
    for caller in list(callers._callers):
        caller.is_doubtful = True
    socket.say(type="subscribe", uuid=run)
    await until(lambda: socket.codes)
    known = len(socket.frames)
    info = await TaskInfo.objects.aget(uuid=run)
    await info.acancel()
    await socket.end()
    assert len(socket.frames) == known


@pytest.mark.usefixtures("no_rounds")
async def test_many_frames_in_a_row_are_judged_once(connect, ann, monkeypatch):
    judgements, revalidate = [], Caller.revalidate
    monkeypatch.setattr(Caller, "revalidate", lambda caller: judgements.append(1) or revalidate(caller))
    socket = await connect(await sync_to_async(browser)(ann))
    for caller in list(callers._callers):
        caller.is_doubtful = True
    monkeypatch.setattr(callers, "JUDGED_FOR", 3600)
    for number in range(50):
        socket.say(**RUN, ref=str(number))
    await until(lambda: len([frame for frame in socket.frames if frame["type"] == "accepted"]) == 50)
    assert len(judgements) == 1


@pytest.mark.usefixtures("no_rounds")
async def test_while_nobody_can_say_who_it_is_a_frame_is_refused_for_now(connect, ann, monkeypatch, caplog):
    socket = await connect(await sync_to_async(browser)(ann))
    for caller in list(callers._callers):
        caller.is_doubtful = True
    with monkeypatch.context() as patch:
        patch.setattr(Caller, "_is_same", lambda caller: 1 / 0)
        answer = await socket.answer(**RUN)
    assert (answer["type"], answer["code"], answer["detail"]) == ("error", "unavailable", ANY)
    assert "who its caller is now" in caplog.text
    assert (await socket.answer(**RUN))["type"] == "accepted"
    assert socket.codes == []


async def test_a_round_goes_on_though_one_of_its_callers_cannot_be_judged(connect, ann, bob, monkeypatch, caplog):
    monkeypatch.setattr(rounds, "PAUSE", 0.02)
    monkeypatch.setattr(callers, "JUDGED_FOR", 0.0)
    usual = Caller._is_same
    broken = await connect(await sync_to_async(browser)(ann))
    monkeypatch.setattr(Caller, "_is_same", lambda caller: 1 / 0 if caller.user_pk == ann.pk else usual(caller))
    client = await sync_to_async(browser)(bob)
    socket = await connect(client)
    await sync_to_async(client.logout)()
    await until(lambda: socket.codes)
    await until(lambda: "could not be judged again" in caplog.text)
    assert broken.codes == []


async def test_a_loop_without_sockets_that_may_change_has_no_round(connect, ann):
    nobody = await connect()
    assert rounds.get_round()._going is None
    socket = await connect(await sync_to_async(browser)(ann))
    assert rounds.get_round()._going is not None
    await socket.end()
    assert rounds.get_round()._going is None
    assert not rounds.get_round()._connections
    assert (await nobody.answer(type="ping"))["type"] == "pong"


def test_an_anonymous_user_of_an_asgi_middleware_is_nobody():
    caller = Caller.of_socket(scope_of() | {"user": AnonymousUser()})
    assert not caller.may_change
