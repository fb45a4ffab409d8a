"""A user whose row is deleted between the authentication and the insert of a run, on SQLite and on PostgreSQL."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections
from django.test import Client, override_settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from taskapi import runs
from taskapi.consumers import TaskConsumer
from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.store.database import in_database
from taskapi.store.ledger import Ledger, ServerLedger, WorkerLedger
from taskapi.tasks import Task
from tests.support.databases import KINDS, Databases
from tests.support.routers import To


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter()}


class FoundThenDeleted(BaseAuthentication):
    """Finds the user; then another process deletes the row, so no signal is sent here."""

    def authenticate(self, request: Request) -> tuple[User, None]:
        user = User.objects.get(username="ada")
        delete(user)
        return user, None


class WithChallenge(FoundThenDeleted):
    def authenticate_header(self, request: Request) -> str:
        return "Token"


STATUSES = {FoundThenDeleted: 403, WithChallenge: 401}


def delete(user: User) -> None:
    User.objects.filter(pk=user.pk)._raw_delete(User.objects.db)


@pytest.fixture(scope="module", params=KINDS)
def alias(request: pytest.FixtureRequest, databases: Databases, django_db_blocker: Any) -> Iterator[str]:
    alias = f"deleted_{request.param}"
    connections.settings[alias] = (
        connections.settings[DEFAULT_DB_ALIAS] | {"OPTIONS": {}} | databases.new(request.param)
    )
    try:
        with django_db_blocker.unblock(), override_settings(DATABASE_ROUTERS=[To(alias)]):
            call_command("migrate", database=alias, verbosity=0)
        yield alias
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


@pytest.fixture(autouse=True)
def ada(alias: str, settings: Any, django_db_blocker: Any) -> Iterator[User]:
    settings.DATABASE_ROUTERS = [To(alias)]
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    settings.CHANNEL_LAYERS = {"taskapi": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with django_db_blocker.unblock():
        yield User.objects.create(username="ada")
        TaskInfo.objects.all().delete()
        User.objects.all().delete()
        connections[alias].close()


@pytest.mark.parametrize("authentication", STATUSES)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_over_rest_the_user_is_not_authenticated(settings, authentication, headers):
    settings.TASK_API_AUTHENTICATION_CLASSES = [authentication]
    body = {"task": "add", "inputs": {"a": 1}}
    answer = Client().post("/tasks/", body, content_type="application/json", headers=headers)
    assert answer.status_code == STATUSES[authentication]
    assert answer.json()["code"] == "not_authenticated"
    assert not TaskInfo.objects.exists()


async def answers(*frames: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a socket to these frames, which are sent at once."""
    scope = {"type": "websocket", "path": "/tasks/ws/", "headers": []}
    received = [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    messages = iter([{"type": "websocket.connect"}, *received, {"type": "websocket.disconnect"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await TaskConsumer()(scope, receive, send)
    await in_database(connections.close_all)
    return [json.loads(message["text"]) for message in sent if "text" in message]


@pytest.mark.parametrize("authentication", STATUSES)
@pytest.mark.parametrize("key", [{}, {"idempotency_key": "k"}])
async def test_over_a_socket_the_user_is_not_authenticated(settings, authentication, key):
    settings.TASK_API_AUTHENTICATION_CLASSES = [authentication]
    frame = {"type": "run", "task": "add", "inputs": {"a": 1}} | key
    refused = await answers(frame | {"ref": "1"}, frame | {"ref": "2"})
    assert [(answer["ref"], answer["code"]) for answer in refused] == [
        ("1", "not_authenticated"),
        ("2", "not_authenticated"),
    ]
    status = STATUSES[authentication]
    assert {answer.get("status", 403) for answer in refused} == {status}
    assert not await in_database(TaskInfo.objects.exists)
    await in_database(connections.close_all)


@pytest.mark.parametrize("kind", [WorkerLedger, ServerLedger])
async def test_the_runs_of_others_that_share_its_transaction_are_recorded(kind, ada):
    ledger: Ledger = kind()
    bob = await in_database(partial(User.objects.create, username="bob"))
    drafts = [runs.draft(Add, {"a": 1}, user=user) for user in (bob, ada, None)]
    await in_database(delete, ada)
    writes = [ledger.write(function) for function in (int, *(partial(runs.save, draft) for draft in drafts))]
    _, *saved = await asyncio.gather(*writes, return_exceptions=True)  # while `int` is written alone, the others wait
    await ledger.close()
    recorded, refused, anonymous = saved
    assert recorded.info.user == bob
    assert anonymous.created
    assert isinstance(refused, IntegrityError)
    await in_database(connections.close_all)


def test_python_code_gets_the_databases_error(ada):
    delete(ada)
    for key in (None, "k"):
        with pytest.raises(IntegrityError):
            runs.submit(Add, {"a": 1}, user=ada, idempotency_key=key)
    assert not TaskInfo.objects.exists()
