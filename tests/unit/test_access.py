"""The same classes give the same verdicts over REST and over a socket."""

import json
from base64 import b64encode
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import OperationalError, ProgrammingError
from django.http import Http404
from django.test import Client
from django.utils.crypto import get_random_string
from rest_framework.authentication import BaseAuthentication, BasicAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed, NotFound, PermissionDenied, ValidationError
from rest_framework.permissions import (
    SAFE_METHODS,
    AllowAny,
    BasePermission,
    DjangoModelPermissions,
    IsAdminUser,
    IsAuthenticated,
    IsAuthenticatedOrReadOnly,
)
from rest_framework.throttling import AnonRateThrottle, UserRateThrottle

from taskapi.callers.caller import Caller
from taskapi.consumers.handshake import origin_allowed
from taskapi.exceptions import (
    AlreadyFinished,
    IdempotencyConflict,
    InvalidInputs,
    NotFinished,
    ProtocolError,
    UnknownTask,
)
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.runs.refusals import REFUSALS, as_api_exception, as_protocol_error, sentence_of_fault
from taskapi.tasks import Task

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]

# The status that a client reads from each code if the `error` frame has none (docs/protocol.md)
STATUSES = {
    "invalid_inputs": 400,
    "unknown_task": 400,
    "not_authenticated": 403,
    "authentication_failed": 403,
    "permission_denied": 403,
    "not_found": 404,
    "conflict": 422,
    "throttled": 429,
}


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter()}


class MembersOnly(Add):
    name = "members_only"
    permission_classes = (IsAuthenticated,)


class OwnLimit(Add):
    name = "own_limit"


class HeaderAuthentication(BaseAuthentication):
    """Finds a user by a header, as a project's own class might; it has no challenge to send."""

    def authenticate(self, request):
        name = request.headers.get("X-User")
        if name is None:
            return None
        user = User.objects.filter(username=name).first()
        if user is None:
            raise AuthenticationFailed("Never heard of you.")
        return user, "by header"


class NotOnTuesdays(BasePermission):
    message = "It is Tuesday."
    code = "tuesday"

    def has_permission(self, request, view):
        return False


class ReadOnly(BasePermission):
    def has_permission(self, request, view):
        return request.method in SAFE_METHODS


class OwnOnly(BasePermission):
    """Not even staff sees the run of another user."""

    message = "Not yours."

    def has_object_permission(self, request, view, obj):
        return obj.user_id == request.user.pk


class NoSuchThing(BasePermission):
    """Hides that the run exists, as DjangoObjectPermissions does."""

    def has_object_permission(self, request, view, obj):
        raise Http404


class DeletedMeanwhile(BasePermission):
    """Another process deletes the run, after it was found and before it is changed."""

    def has_object_permission(self, request, view, obj):
        TaskInfo.objects.filter(pk=obj.pk).delete()
        return True


class GoAway(BasePermission):
    def has_permission(self, request, view):
        raise DjangoPermissionDenied("a sentence for the log")


class OnlyAdd(BasePermission):
    """Judges by the task that is to be started, and its inputs."""

    message = "Only 1 can be added."

    def has_permission(self, request, view):
        return request.method in SAFE_METHODS or (request.data["task"], request.data["inputs"]) == ("add", {"a": 1})


class ByUUID(BasePermission):
    """Judges by the address of the run."""

    message = "Not that one."

    def has_permission(self, request, view):
        return "uuid" not in view.kwargs or view.kwargs["uuid"].int % 2 == 0


class HasAuth(BasePermission):
    def has_permission(self, request, view):
        return request.auth == "by header"


PASSWORD = "secret"


@pytest.fixture
def users():
    created = {name: User.objects.create_user(name, password=PASSWORD) for name in ("ann", "bob", "gone")}
    created["staff"] = User.objects.create_user("staff", password=PASSWORD, is_staff=True)
    User.objects.filter(username="gone").update(is_active=False)
    return created


@pytest.fixture(autouse=True)
def project(settings):
    """The settings, with the tasks of this module."""
    settings.TASK_API_BACKGROUND_TASKS = [Add, MembersOnly, OwnLimit]
    cache.clear()
    return settings


class Visitor:
    """A client, a browser or a script. It sends the same headers and cookies with each request and with a handshake."""

    def __init__(self, headers=None, login=None):
        self.headers = headers or {}
        self.client = Client()
        if login is not None:
            self.client.force_login(login)

    # REST

    def rest_start(self, task="add", inputs=None):
        body = json.dumps({"task": task, "inputs": {"a": 1} if inputs is None else inputs})
        return verdict(self.client.post("/tasks/", body, content_type="application/json", headers=self.headers))

    def rest_find(self, uuid):
        return verdict(self.client.get(f"/tasks/{uuid}/", headers=self.headers))

    def rest_cancel(self, uuid):
        return verdict(self.client.post(f"/tasks/{uuid}/cancel/", headers=self.headers))

    # WebSocket

    def scope(self):
        headers = {
            "Host": "testserver",
            "Cookie": self.client.cookies.output(header="", sep=";").strip(),
            **self.headers,
        }
        return {
            "type": "websocket",
            "scheme": "ws",
            "path": "/tasks/ws/",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ["127.0.0.1", 50_000],
            "subprotocols": [],
        }

    def ws(self, method, act, data=None, **kwargs):
        try:
            return act(Caller.of_socket(self.scope()).view(method, data, **kwargs))
        except REFUSALS as error:
            refusal = as_protocol_error(error, "r")
            assert refusal.ref == "r"
            return refusal.status or STATUSES[refusal.code], json.loads(json.dumps(refusal.detail))

    def ws_start(self, task="add", inputs=None):
        given = {"a": 1} if inputs is None else inputs
        data = {"task": task, "inputs": given}
        return self.ws("POST", lambda view: view.start_run(task, given).info and OK, data)

    def ws_find(self, uuid):
        return self.ws("GET", lambda view: view.find_run(uuid) and OK, uuid=uuid)

    def ws_cancel(self, uuid):
        return self.ws("POST", lambda view: view.cancel_run(uuid) and OK, uuid=uuid)


OK = (200, None)


def verdict(response):
    """The status and the refusal of an answer over REST."""
    if response.status_code < 300:
        return OK
    body = response.json()
    return response.status_code, body["detail"] if set(body) == {"detail", "code"} else body


def basic(name, password=PASSWORD):
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


VISITORS = {
    "nobody": lambda users: Visitor(),
    "ann by password": lambda users: Visitor(basic("ann")),
    "wrong password": lambda users: Visitor(basic("ann", "wrong")),
    "not even base64": lambda users: Visitor({"Authorization": "Basic ???"}),
    "deactivated": lambda users: Visitor(basic("gone")),
    "ann by session": lambda users: Visitor(login=users["ann"]),
    "staff by session": lambda users: Visitor(login=users["staff"]),
    "bob by header": lambda users: Visitor({"X-User": "bob"}),
    "unknown by header": lambda users: Visitor({"X-User": "nobody"}),
}
AUTHENTICATION = {
    "default": [SessionAuthentication, BasicAuthentication],
    "basic first": [BasicAuthentication, SessionAuthentication],
    "none": [],
    "header": [HeaderAuthentication],
}
PERMISSIONS = {
    "anybody": [AllowAny],
    "members": [IsAuthenticated],
    "staff": [IsAdminUser],
    "read only": [IsAuthenticatedOrReadOnly],
    "combined": [IsAdminUser | ReadOnly],
    "own runs": [OwnOnly],
    "with a sentence": [NotOnTuesdays],
    "by auth": [HasAuth],
    "by what is asked": [OnlyAdd],
    "by the address": [ByUUID],
    "raises 404": [NoSuchThing],
    "raises 403": [GoAway],
    "of models": [DjangoModelPermissions],
}


@pytest.fixture
def runs(users):
    return {
        "nobody's": TaskInfo.objects.create(task="add").uuid,
        "ann's": TaskInfo.objects.create(task="add", user=users["ann"]).uuid,
        "ann's, for members only": TaskInfo.objects.create(task="members_only", user=users["ann"]).uuid,
        "of a task that is no more": TaskInfo.objects.create(task="nothing", user=users["ann"]).uuid,
        "none": uuid4(),
    }


def verdicts(start, find, runs):
    return {
        "start": start(),
        "start for members": start("members_only"),
        "start nothing": start("nothing"),
        "start wrongly": start(inputs={"a": "x"}),
        **{name: find(uuid) for name, uuid in runs.items()},
    }


@pytest.mark.parametrize("change", ["cancel", "retry"])
def test_a_run_that_is_deleted_before_it_is_changed_is_not_found(project, users, change):
    project.TASK_API_PERMISSIONS_CLASSES = [DeletedMeanwhile]
    ann = Visitor(basic("ann"))
    over_rest, over_socket = (TaskInfo.objects.create(task="add", user=users["ann"]).uuid for _ in range(2))
    answer = ann.client.post(f"/tasks/{over_rest}/{change}/", headers=ann.headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert ann.ws("POST", lambda view: getattr(view, f"{change}_run")(over_socket), uuid=over_socket)[0] == 404


@pytest.mark.parametrize(
    ("authentication", "permissions"),
    [
        *(("default", name) for name in PERMISSIONS),
        *((name, "members") for name in ("basic first", "none", "header")),
        ("header", "by auth"),
    ],
)
def test_both_doors_give_the_same_verdicts_to_everybody(project, users, runs, authentication, permissions):
    project.TASK_API_AUTHENTICATION_CLASSES = AUTHENTICATION[authentication]
    project.TASK_API_PERMISSIONS_CLASSES = PERMISSIONS[permissions]
    visitors = {name: visitor(users) for name, visitor in VISITORS.items()}
    rest = {name: verdicts(visitor.rest_start, visitor.rest_find, runs) for name, visitor in visitors.items()}
    ws = {name: verdicts(visitor.ws_start, visitor.ws_find, runs) for name, visitor in visitors.items()}
    assert ws == rest


# The verdicts are right

UNKNOWN, FORBIDDEN, HIDDEN = 401, 403, 404


@pytest.mark.parametrize(
    ("permissions", "visitor", "status"),
    [
        ("anybody", "nobody", 200),
        ("anybody", "wrong password", UNKNOWN),
        ("anybody", "deactivated", UNKNOWN),
        ("members", "nobody", UNKNOWN),
        ("members", "ann by password", 200),
        ("members", "ann by session", 200),
        ("staff", "ann by session", FORBIDDEN),
        ("staff", "staff by session", 200),
        ("read only", "nobody", UNKNOWN),
        ("with a sentence", "staff by session", FORBIDDEN),
        ("with a sentence", "nobody", UNKNOWN),
    ],
)
def test_who_may_start_a_run(project, users, permissions, visitor, status):
    project.TASK_API_AUTHENTICATION_CLASSES = AUTHENTICATION["basic first"]
    project.TASK_API_PERMISSIONS_CLASSES = PERMISSIONS[permissions]
    caller = VISITORS[visitor](users)
    assert (caller.ws_start()[0], caller.rest_start()[0]) == (status, status)
    assert TaskInfo.objects.exists() is (status == 200)


@pytest.mark.parametrize(
    ("run", "visitor", "status"),
    [
        ("ann's", "ann by session", 200),
        ("ann's", "ann by password", 200),
        ("ann's", "staff by session", 200),
        ("ann's", "nobody", HIDDEN),
        ("nobody's", "nobody", 200),
        ("nobody's", "ann by session", 200),
        ("ann's, for members only", "ann by session", 200),
        ("ann's, for members only", "nobody", HIDDEN),
        ("of a task that is no more", "ann by session", 200),
        ("of a task that is no more", "nobody", HIDDEN),
        ("none", "staff by session", HIDDEN),
    ],
)
def test_who_may_see_a_run(users, runs, run, visitor, status):
    caller = VISITORS[visitor](users)
    assert (caller.ws_find(runs[run])[0], caller.rest_find(runs[run])[0]) == (status, status)


def test_another_user_does_not_learn_that_there_is_a_run(users, runs):
    bob = Visitor(login=users["bob"])
    assert bob.ws_find(runs["ann's"]) == bob.ws_find(runs["none"]) == (404, "Not found.")


def test_a_run_belongs_to_whoever_started_it(users):
    for start in (Visitor(login=users["ann"]).rest_start, Visitor(login=users["ann"]).ws_start):
        start()
        assert TaskInfo.objects.get().user == users["ann"]
        TaskInfo.objects.all().delete()
    Visitor().ws_start()
    assert TaskInfo.objects.get().user is None


def test_the_classes_of_a_task_come_on_top_of_the_projects(project, users):
    nobody, ann = Visitor(), Visitor(login=users["ann"])
    assert [caller.ws_start("members_only")[0] for caller in (nobody, ann)] == [403, 200]
    project.TASK_API_PERMISSIONS_CLASSES = [IsAdminUser]
    assert ann.ws_start("members_only")[0] == 403


def test_a_class_that_judges_the_run_is_asked_about_it(project, users, runs):
    project.TASK_API_PERMISSIONS_CLASSES = [OwnOnly]
    assert Visitor(login=users["ann"]).ws_find(runs["ann's"]) == OK
    assert Visitor(login=users["staff"]).ws_find(runs["ann's"]) == (403, "Not yours.")


def test_a_task_may_have_a_class_that_judges_its_runs(users, runs, monkeypatch):
    monkeypatch.setattr(MembersOnly, "permission_classes", (OwnOnly,))
    staff = Visitor(login=users["staff"])
    assert staff.ws_find(runs["ann's, for members only"]) == (403, "Not yours.")
    assert staff.ws_find(runs["ann's"]) == OK


def test_a_handshake_is_authenticated_once_and_each_frame_judged_anew(project, users, django_assert_num_queries):
    caller = Caller.of_socket(Visitor(basic("ann")).scope())
    with django_assert_num_queries(0):
        assert caller.view("GET").request.user == users["ann"]
    project.TASK_API_PERMISSIONS_CLASSES = [IsAdminUser]
    with pytest.raises(PermissionDenied):
        caller.view("GET")


def test_wrong_credentials_are_refused_in_the_handshake(users):
    with pytest.raises(AuthenticationFailed):
        Caller.of_socket(Visitor(basic("ann", "wrong")).scope())


# Not authenticated, or not found


@pytest.mark.parametrize("permissions", ["anybody", "members", "own runs", "raises 404"])
@pytest.mark.parametrize("authentication", ["default", "basic first", "header"])
def test_who_has_no_credentials_is_answered_the_same_whether_there_is_such_a_run(
    project, users, runs, authentication, permissions
):
    project.TASK_API_AUTHENTICATION_CLASSES = AUTHENTICATION[authentication]
    project.TASK_API_PERMISSIONS_CLASSES = PERMISSIONS[permissions]
    nobody = Client()
    for call, path in ((nobody.get, ""), (nobody.post, "cancel/"), (nobody.post, "retry/")):
        answers = [call(f"/tasks/{runs[run]}/{path}") for run in ("ann's", "ann's, for members only", "none")]
        first, *others = [(answer.status_code, answer.content, answer.headers) for answer in answers]
        assert others == [first, first]
        assert answers[0].json()["code"] == "not_authenticated"


def test_who_is_logged_in_is_told_that_a_run_is_gone(users, runs):
    bob = Visitor(login=users["bob"])
    for uuid in (runs["ann's"], runs["none"]):
        answer = bob.client.get(f"/tasks/{uuid}/")
        assert answer.json() == {"detail": "Not found.", "code": "not_found"}


def test_where_nobody_can_log_in_a_run_is_gone_for_everybody(project, runs):
    project.TASK_API_AUTHENTICATION_CLASSES = []
    assert Client().get(f"/tasks/{runs['none']}/").json()["code"] == "not_found"
    with pytest.raises(NotFound) as refusal:
        Caller.of_socket(Visitor().scope()).view("GET", uuid=runs["none"]).find_run(runs["none"])
    assert as_protocol_error(refusal.value, None).reason is None


@pytest.mark.parametrize(("visitor", "reason"), [("nobody", "not_authenticated"), ("ann by password", None)])
def test_over_a_socket_the_reason_says_it(users, runs, visitor, reason):
    view = Caller.of_socket(VISITORS[visitor](users).scope()).view("GET", uuid=runs["none"])
    with pytest.raises(NotFound) as refusal:
        view.find_run(runs["none"])
    said = as_protocol_error(refusal.value, "r")
    assert (said.code, said.detail, said.reason) == ("not_found", "Not found.", reason)


@pytest.mark.parametrize(
    ("permissions", "visitor", "code"),
    [
        ("members", "nobody", "not_authenticated"),
        ("members", "wrong password", "authentication_failed"),
        ("members", "deactivated", "authentication_failed"),
        ("staff", "ann by session", "permission_denied"),
        ("with a sentence", "ann by session", "permission_denied"),
        ("raises 403", "ann by session", "permission_denied"),
    ],
)
def test_a_refusal_has_a_code_beside_its_sentence(project, users, permissions, visitor, code):
    project.TASK_API_PERMISSIONS_CLASSES = PERMISSIONS[permissions]
    caller = VISITORS[visitor](users)
    for authentication in ("default", "basic first"):  # 403 and 401
        project.TASK_API_AUTHENTICATION_CLASSES = AUTHENTICATION[authentication]
        answer = caller.client.get(f"/tasks/{uuid4()}/", headers=caller.headers).json()
        assert answer == {"detail": answer["detail"], "code": code}


def test_every_refusal_that_is_a_sentence_has_a_code_and_those_of_fields_have_none(users):
    post = Client(headers=basic("ann")).post
    answers = [
        post("/tasks/", "{", content_type="application/json"),
        post("/tasks/", "a", content_type="text/plain"),
        Client().put("/tasks/"),
    ]
    assert [answer.json()["code"] for answer in answers] == [
        "parse_error",
        "unsupported_media_type",
        "method_not_allowed",
    ]
    for body in ({"task": "nothing"}, {"task": "add", "inputs": {"a": "x"}}):
        assert "code" not in post("/tasks/", body, content_type="application/json").json()


# Cancelling


@pytest.mark.parametrize("cancel", [Visitor.rest_cancel, Visitor.ws_cancel], ids=["rest", "ws"])
@pytest.mark.parametrize(
    ("run", "visitor"),
    [
        ("ann's", "ann by session"),
        ("ann's", "staff by session"),
        ("nobody's", "nobody"),
        ("nobody's", "ann by session"),
    ],
)
@pytest.mark.usefixtures("memory_layer")
def test_who_may_cancel_a_run(users, runs, cancel, run, visitor):
    assert cancel(VISITORS[visitor](users), runs[run]) == OK
    assert TaskInfo.objects.get(status="cancelled").uuid == runs[run]


@pytest.mark.parametrize("cancel", [Visitor.rest_cancel, Visitor.ws_cancel], ids=["rest", "ws"])
@pytest.mark.parametrize(
    ("run", "visitor"), [("ann's", "bob by header"), ("ann's", "nobody"), ("none", "staff by session")]
)
def test_who_may_not_see_a_run_may_not_cancel_it(users, runs, cancel, run, visitor):
    assert cancel(VISITORS[visitor](users), runs[run]) == (HIDDEN, "Not found.")
    assert not TaskInfo.objects.filter(status="cancelled").exists()


@pytest.mark.usefixtures("memory_layer")
def test_a_run_that_has_ended_cannot_be_cancelled_through_either_door(runs):
    visitor = Visitor()
    assert visitor.ws_cancel(runs["nobody's"]) == OK
    refused = (409, "The run has ended (cancelled); it cannot be cancelled.")
    assert visitor.ws_cancel(runs["nobody's"]) == visitor.rest_cancel(runs["nobody's"]) == refused


def test_a_cookie_alone_cancels_nothing_over_rest(users, runs):
    visitor = Visitor(login=users["ann"])
    visitor.client.handler.enforce_csrf_checks = True
    assert visitor.rest_cancel(runs["ann's"])[0] == 403
    assert not TaskInfo.objects.filter(status="cancelled").exists()


# What the classes see of a socket


def seen(visitor, method="GET"):
    return Caller.of_socket(visitor.scope()).view(method).request


def test_a_socket_is_seen_as_the_request_that_does_the_same(users):
    request = seen(Visitor({"X-User": "ann", "User-Agent": "me"}), "POST")
    assert request.method == "POST"
    assert request.headers["User-Agent"] == "me"
    assert request.META["REMOTE_ADDR"] == "127.0.0.1"
    assert (request.get_host(), request.is_secure()) == ("testserver", False)
    assert isinstance(request.user, AnonymousUser)


def test_an_encrypted_socket_is_seen_as_secure():
    scope = Visitor().scope() | {"scheme": "wss"}
    assert Caller.of_socket(scope).view("GET").request.is_secure()


def test_frames_do_not_change_one_anothers_request():
    caller = Caller.of_socket(Visitor().scope())
    post, get = caller.view("POST"), caller.view("GET")
    assert (post.request.method, get.request.method) == ("POST", "GET")


def test_the_authenticator_of_the_handshake_is_known_to_the_frames(project, users):
    project.TASK_API_AUTHENTICATION_CLASSES = [HeaderAuthentication]
    request = seen(Visitor({"X-User": "bob"}))
    assert (request.user, request.auth) == (users["bob"], "by header")


def test_the_session_of_the_handshake_is_there(users):
    visitor = Visitor(login=users["ann"])
    session = visitor.client.session
    session["colour"] = "blue"
    session.save()
    request = seen(visitor)
    assert request.session["colour"] == "blue"
    assert request.user == users["ann"]


def test_a_session_that_has_ended_is_nobodys(users):
    visitor = Visitor(login=users["ann"])
    visitor.client.session.flush()
    assert isinstance(seen(visitor).user, AnonymousUser)


def test_what_the_projects_own_middleware_put_into_the_scope_is_taken(users):
    scope = Visitor().scope() | {"user": users["bob"], "session": {"colour": "red"}}
    request = Caller.of_socket(scope).view("GET").request
    assert request.user == users["bob"]
    assert request.session == {"colour": "red"}


# CSRF


@pytest.fixture
def browser(users):
    visitor = Visitor(login=users["ann"])
    visitor.client.handler.enforce_csrf_checks = True
    return visitor


def test_a_cookie_alone_starts_nothing_over_rest(browser):
    status, detail = browser.rest_start()
    assert status == 403
    assert detail.startswith("CSRF Failed")
    assert not TaskInfo.objects.exists()


def test_who_has_no_csrf_cookie_is_told_how_a_page_gets_it(browser):
    status, detail = browser.rest_start()
    assert status == 403
    assert detail == (
        "CSRF Failed: CSRF cookie not set. Put {% task_script %} or {% csrf_token %} into the template of the page, "
        "or decorate its view with django.views.decorators.csrf.ensure_csrf_cookie."
    )
    browser.client.cookies["csrftoken"] = get_random_string(32)
    _, detail = browser.rest_start()
    assert detail.startswith("CSRF Failed: CSRF token missing. Put {% task_script %} or {% csrf_token %} into")


def test_a_wrong_csrf_token_is_another_mistake(browser):
    browser.client.cookies["csrftoken"] = get_random_string(32)
    browser.headers = {"X-CSRFToken": get_random_string(32)}
    _, detail = browser.rest_start()
    assert detail.startswith("CSRF Failed: CSRF token from the 'X-Csrftoken' HTTP header")
    assert "ensure_csrf_cookie" not in detail


def test_a_cookie_with_a_token_starts_a_run_over_rest(browser):
    token = get_random_string(32)
    browser.client.cookies["csrftoken"] = token
    browser.headers = {"X-CSRFToken": token}
    assert browser.rest_start() == OK


def test_reading_needs_no_token(browser, runs):
    assert browser.rest_find(runs["ann's"]) == OK


def test_a_password_needs_no_token(users):
    script = Visitor(basic("ann"))
    script.client.handler.enforce_csrf_checks = True
    assert script.rest_start() == OK


def test_a_socket_needs_no_token_since_its_origin_was_checked(browser):
    assert browser.ws_start() == OK


# Throttles


class Once(UserRateThrottle):
    rate = "1/day"


class OnceForOthers(AnonRateThrottle):
    rate = "1/day"


@pytest.mark.parametrize("first", ["rest_start", "ws_start"])
@pytest.mark.parametrize("second", ["rest_start", "ws_start"])
@pytest.mark.parametrize("login", [None, "ann"])
def test_starts_are_counted_together_whichever_door_they_come_through(project, users, first, second, login):
    project.TASK_API_THROTTLE_CLASSES = [Once, OnceForOthers]
    visitor = Visitor(login=users.get(login))
    assert getattr(visitor, first)() == OK
    status, detail = getattr(visitor, second)()
    assert status == 429
    assert detail.startswith("Request was throttled. Expected available in ")
    assert TaskInfo.objects.count() == 1


def test_others_are_not_throttled_with_one(project, users):
    project.TASK_API_THROTTLE_CLASSES = [Once]
    assert [Visitor(login=users[name]).ws_start() for name in ("ann", "bob")] == [OK, OK]


def test_reading_is_not_throttled(project, runs):
    project.TASK_API_THROTTLE_CLASSES = [Once]
    visitor = Visitor()
    assert [look(runs["nobody's"]) for look in (visitor.rest_find, visitor.ws_find) for _ in range(3)] == [OK] * 6
    assert visitor.rest_start() == OK


def test_a_task_may_be_throttled_by_itself(monkeypatch):
    monkeypatch.setattr(OwnLimit, "throttle_classes", (Once,))
    visitor = Visitor()
    assert [visitor.ws_start("own_limit")[0], visitor.rest_start("own_limit")[0]] == [200, 429]
    assert [visitor.ws_start("add"), visitor.rest_start("add")] == [OK, OK]


def test_looking_and_cancelling_are_not_throttled(project, runs):
    project.TASK_API_THROTTLE_CLASSES = [OnceForOthers]
    visitor = Visitor()
    assert visitor.ws_start() == OK
    assert visitor.ws_start()[0] == 429
    assert [visitor.ws_find(runs["nobody's"]), visitor.rest_find(runs["nobody's"])] == [OK, OK]
    assert visitor.ws_cancel(runs["nobody's"]) == OK
    assert visitor.rest_cancel(runs["nobody's"])[0] == 409  # it was cancelled already


def test_who_may_not_start_a_run_does_not_use_up_his_rate(project, users):
    project.TASK_API_THROTTLE_CLASSES = [Once]
    visitor = Visitor()
    assert visitor.ws_start("members_only")[0] == visitor.rest_start("members_only")[0] == 403
    assert visitor.ws_start() == OK


# Refusals


class Teapot(APIException):
    status_code = 418
    default_detail = "Short and stout."


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (InvalidInputs({"a": ["No."]}), "invalid_inputs", {"inputs": {"a": ["No."]}}),
        (UnknownTask("fly"), "unknown_task", {"task": ["There is no task named 'fly'."]}),
        (Http404("a sentence for the log"), "not_found", "Not found."),
        (
            DjangoPermissionDenied("a sentence for the log"),
            "permission_denied",
            "You do not have permission to perform this action.",
        ),
        (IdempotencyConflict(), "conflict", "This idempotency key was used before with other inputs."),
        (NotFound(), "not_found", "Not found."),
        (PermissionDenied("Go away."), "permission_denied", "Go away."),
        (ValidationError({"b": ["No."]}), "invalid_frame", {"b": ["No."]}),
    ],
)
def test_a_refusal_says_over_a_socket_what_it_says_over_rest(error, code, detail):
    assert isinstance(error, REFUSALS)
    refusal = as_protocol_error(error, "r")
    assert (refusal.code, refusal.detail, refusal.ref, refusal.status) == (code, detail, "r", None)
    assert as_api_exception(error).detail == detail


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (AlreadyFinished(TaskInfo(status="failed")), "The run has ended (failed); it cannot be cancelled."),
        (NotFinished(TaskInfo(status="running")), "The run is running; one that has not ended cannot be retried."),
    ],
)
def test_what_makes_no_sense_is_a_conflict_and_says_which(error, sentence):
    refusal = as_protocol_error(error, None)
    assert (refusal.code, refusal.detail, refusal.status) == ("conflict", sentence, 409)


@pytest.mark.parametrize(
    ("tasks", "name", "remedy"),
    [
        ([], "sum", "TASK_API_BACKGROUND_TASKS is empty: name the Task classes in it, by their dotted paths."),
        (["tests.project.tasks.Sum"], "sums", "Did you mean 'sum'?"),
        (
            ["tests.project.tasks.Sum", "tests.project.tasks.Hold"],
            "fly",
            "The tasks in TASK_API_BACKGROUND_TASKS are: hold, sum.",
        ),
    ],
)
def test_a_developer_is_told_which_tasks_there_are(settings, tasks, name, remedy):
    settings.TASK_API_BACKGROUND_TASKS = tasks
    settings.DEBUG = True
    said = f"There is no task named {name!r}."
    assert as_protocol_error(UnknownTask(name), None).detail == {"task": [f"{said} {remedy}"]}
    settings.DEBUG = False
    assert as_protocol_error(UnknownTask(name), None).detail == {"task": [said]}


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("no such table: taskapi_taskinfo"),
        OperationalError("table taskapi_taskinfo has no column named lost"),
        ProgrammingError('relation "taskapi_taskinfo" does not exist\nLINE 1: SELECT 1'),
        ProgrammingError('column "lost" of relation "taskapi_taskinfo" does not exist'),
        ProgrammingError(1146, "Table 'mysite.taskapi_taskinfo' doesn't exist"),
        OperationalError(1054, "Unknown column 'lost' in 'field list'"),
    ],
)
def test_a_developer_who_has_forgotten_migrate_is_told(settings, error):
    settings.DEBUG = True
    answer = as_api_exception(error)
    assert answer.status_code == 503
    assert str(answer.detail) == sentence_of_fault(error)
    assert str(answer.detail).endswith("Run: python manage.py migrate")
    settings.DEBUG = False
    assert sentence_of_fault(error) == "The server could not do this now. Try again later."


@pytest.mark.parametrize(
    "error",
    [
        OperationalError('connection failed: FATAL: database "mysite" does not exist'),
        OperationalError("database is locked"),
        ValueError("no such table: taskapi_taskinfo"),
    ],
)
def test_other_faults_are_not_taken_for_a_missing_migration(settings, error):
    settings.DEBUG = True
    assert sentence_of_fault(error) == "The server could not do this now. Try again later."


def test_a_refusal_of_the_protocol_is_its_own():
    error = ProtocolError("invalid_frame", "No.", "mine")
    assert as_protocol_error(error, None) is error


@pytest.mark.parametrize("authentication", ["default", "basic first", "none", "header"])
def test_somebody_unknown_is_told_the_status_that_rest_gives(project, authentication):
    project.TASK_API_AUTHENTICATION_CLASSES = AUTHENTICATION[authentication]
    refusal = as_protocol_error(AuthenticationFailed(), None)
    assert refusal.status == (401 if authentication == "basic first" else None)


def test_an_error_that_is_no_refusal_stays_one():
    error = ZeroDivisionError()
    assert as_api_exception(error) is error
    assert not isinstance(error, REFUSALS)


# Origin


@pytest.mark.parametrize(
    ("origin", "hosts", "debug", "allowed"),
    [
        (None, ["example.com"], False, True),  # not a browser
        (None, [], False, True),
        ("https://example.com", ["example.com"], False, True),
        ("https://example.com:8443", ["example.com"], False, True),
        ("HTTPS://EXAMPLE.COM", ["example.com"], False, True),
        ("https://example.com.", ["example.com"], False, True),
        ("https://www.example.com", ["example.com"], False, False),
        ("https://www.example.com", [".example.com"], False, True),
        ("https://example.com", [".example.com"], False, True),
        ("https://notexample.com", [".example.com"], False, False),
        ("https://example.com.evil.com", ["example.com"], False, False),
        ("https://example.com@evil.com", ["example.com"], False, False),
        ("https://evil.com#example.com", ["example.com"], False, False),
        ("https://evil.com?https://example.com", ["example.com"], False, False),
        ("https://evil.com", ["*"], False, True),
        ("http://[::1]:8000", ["[::1]"], False, True),
        ("http://[::1", ["[::1]"], False, False),
        ("null", ["example.com"], False, False),
        ("", ["example.com"], False, False),
        ("example.com", ["example.com"], False, False),
        ("https://exam\xffple.com", ["example.com"], False, False),
        ("http://localhost:8000", [], True, True),
        ("http://sub.localhost", [], True, True),
        ("http://127.0.0.1:8000", [], True, True),
        ("http://[::1]:8000", [], True, True),
        ("http://example.com", [], True, False),
        ("http://localhost", [], False, False),
        ("http://localhost", ["example.com"], True, False),
    ],
)
def test_a_page_may_open_a_socket_where_its_host_is_allowed(settings, origin, hosts, debug, allowed):
    settings.ALLOWED_HOSTS, settings.DEBUG = hosts, debug
    headers = [(b"host", b"example.com")] + ([] if origin is None else [(b"origin", origin.encode("latin1"))])
    assert origin_allowed({"headers": headers}) is allowed
