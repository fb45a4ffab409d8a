"""If a project's router reads from a replica, our reads still go to the primary."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings
from django.utils import timezone

from taskapi import runs
from taskapi.events import subscription
from taskapi.models import TaskInfo, TaskMessage
from taskapi.params import IntParameter
from taskapi.protocol.states import Status
from taskapi.runs import Outcome
from taskapi.tasks import Task
from taskapi.workers import upkeep
from tests.support.routers import Replica, To

PRIMARY, REPLICA = "primary", "replica"


class Sum(Task):
    name = "sum"
    outputs = {"sum": IntParameter()}


@pytest.fixture(autouse=True)
def databases(tmp_path, settings, django_db_blocker):
    """A primary, and a replica that no write has reached yet."""
    for alias in (PRIMARY, REPLICA):
        name = {"NAME": str(tmp_path / f"{alias}.sqlite3")}
        connections.settings[alias] = connections.settings[DEFAULT_DB_ALIAS] | name
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Sum]
    with django_db_blocker.unblock():
        for alias in (PRIMARY, REPLICA):
            with override_settings(DATABASE_ROUTERS=[To(alias)]):
                call_command("migrate", database=alias, verbosity=0)
        settings.DATABASE_ROUTERS = [Replica(REPLICA, PRIMARY)]
        yield
        for alias in (PRIMARY, REPLICA):
            connections[alias].close()
            del connections[alias], connections.settings[alias]


def test_the_replica_is_behind():
    User.objects.create(username="ada")
    assert not User.objects.exists()


def ended(**options):
    info = runs.submit(Sum, {}, **options).info
    held = runs.begin(info.uuid, "mine")
    message = TaskMessage(run_id=held.pk, index=0, attempt=1, seq=held.seq + 1, body="hello")
    said = {"seq": held.seq + 5, "target": None, "progress": None, "messages": [message]}
    assert runs.finish(held, Outcome(Status.SUCCEEDED, {"sum": 3}), **said)
    return info


def test_a_result_is_found_at_once():
    assert ended().result(timeout=10) == {"sum": 3}


async def test_a_result_is_found_at_once_by_async_code():
    info = await subscription.in_database(ended)
    assert await info.aresult(timeout=10) == {"sum": 3}
    await subscription.in_database(connections.close_all)


def test_a_run_that_is_read_again_is_what_was_written():
    info = ended()
    info.refresh_from_db()
    assert (info.status, info.messages) == ("succeeded", ["hello"])
    deferred = TaskInfo.rows().only("uuid").get()
    assert deferred.status == "succeeded"


def test_a_follower_is_shown_all_messages():
    info, messages = subscription._read_changes(ended().uuid, 0)
    assert [message.body for message in messages] == ["hello"]
    assert info.messages_after(0) == ["hello"]


def test_the_run_of_a_new_user_begins_at_once():
    ada = User(username="ada")
    ada.save()
    held = runs.begin(runs.submit(Sum, {}, user=ada).info.uuid)
    assert held.user == ada


def test_a_new_user_can_have_a_run_again():
    ada = User(username="ada")
    ada.save()
    info = TaskInfo.rows().get(pk=ended(user=ada).pk)
    assert runs.retry(info).user == ada


def test_a_run_that_is_looked_at_over_rest_is_there(client):
    info = ended()
    shown = client.get(f"/tasks/{info.uuid}/").json()
    assert (shown["status"], shown["messages"]) == ("succeeded", ["hello"])


def test_the_admin_shows_a_run_at_once(rf):
    info = ended()
    request = rf.get("/")
    request.user = User(is_superuser=True, is_staff=True)
    runs_admin = admin.site.get_model_admin(TaskInfo)
    assert list(runs_admin.get_queryset(request)) == [info]
    assert "hello" in runs_admin.messages_json(runs_admin.get_object(request, str(info.pk)))


def test_a_run_and_its_user_can_be_deleted():
    ada = User(username="ada")
    ada.save()
    ended(user=ada)
    ended().delete()
    User.objects.using(PRIMARY).get().delete()
    assert not TaskInfo.rows().exists()
    TaskInfo.rows().create(task="sum", status="succeeded", expires=timezone.now() - runs.LEASE)
    assert upkeep.prune() == 1
