"""Cancelling, timeouts, retries, and the deletion of finished runs."""

import asyncio
import json

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.support.socket import open_socket
from tests.support.waiting import wait_for

one_database = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
deaf_layer = pytest.mark.parametrize("stack", [pytest.param(("sqlite", "deaf"), id="deaf")], indirect=True)


async def test_a_pending_run_is_cancelled_at_once(stack, rest, gate):
    for name in stack.workers:
        stack.kill(name)
    uuid = rest.start("hold", gate=str(gate))
    follower = Follower(lambda: stack.ws_url, uuid)
    following = asyncio.create_task(follower.follow())
    await follower.subscribed.wait()
    answer = await asyncio.to_thread(rest.cancel, uuid)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    await following  # no worker runs: the server told it
    check(follower, rest.get(uuid))
    stack.heal()
    other = rest.start("burst", n=3)
    assert (await asyncio.to_thread(rest.ended, other))["status"] == "succeeded"
    assert rest.get(uuid)["attempt"] == 0
    assert stack.executions(uuid) == []


async def test_a_running_sync_task_is_cancelled_at_its_next_progress_call(stack, rest, gate):
    uuid = rest.start("loop", gate=str(gate))
    stack.worker_of(uuid)
    async with open_socket(stack.ws_url) as socket:
        await socket.send(type="cancel", ref="1", uuid=uuid)
        assert await socket.receive() == {"type": "cancelling", "ref": "1", "uuid": uuid}
        run = await asyncio.to_thread(rest.ended, uuid)
        assert (run["status"], run["cancel_requested"], run["error"]) == ("cancelled", True, None)
        assert stack.executions(uuid, "Interrupted")
        await socket.send(type="cancel", ref="2", uuid=uuid)
        answer = await socket.receive()
        assert (answer["type"], answer["code"]) == ("error", "conflict")
    assert rest.cancel(uuid).status_code == 409
    assert rest.get(uuid) == run


def test_a_running_async_task_is_cancelled_by_cancelled_error(stack, rest, gate):
    uuid = rest.start("async_hold", gate=str(gate))
    stack.worker_of(uuid)
    assert rest.cancel(uuid).json()["cancel_requested"] is True
    assert rest.ended(uuid)["status"] == "cancelled"
    assert stack.executions(uuid, "cancelled")


def test_a_task_that_ignores_a_cancel_request_ends_as_it_ends(stack, rest, gate):
    uuids = [rest.start(name, gate=str(gate)) for name in ("deaf", "async_deaf")]
    for uuid in uuids:
        stack.worker_of(uuid)
        assert rest.cancel(uuid).status_code == 202
    wait_for(lambda: stack.executions(uuids[1], "cancelled"))
    assert [rest.get(uuid)["status"] for uuid in uuids] == ["running"] * 2
    gate.touch()
    for uuid in uuids:
        run = rest.ended(uuid)
        assert (run["status"], run["cancel_requested"], run["outputs"]) == ("succeeded", True, {"attempt": 1})


@deaf_layer
def test_a_cancel_request_of_which_no_event_arrives_is_noticed_all_the_same(stack, rest, gate):
    uuids = [rest.start(name, gate=str(gate)) for name in ("loop", "async_hold")]
    for uuid in uuids:
        stack.worker_of(uuid)
        rest.cancel(uuid)
    assert [rest.ended(uuid)["status"] for uuid in uuids] == ["cancelled"] * 2


@one_database
def test_a_cancel_request_while_redis_is_away_is_noticed_all_the_same(stack, rest, gate):
    running = [rest.start(name, gate=str(gate)) for name in ("loop", "async_hold")]
    for uuid in running:
        stack.worker_of(uuid)
    stack.stop_valkey()
    pending = rest.start("hold", gate=str(gate))
    for uuid in (*running, pending):
        assert rest.cancel(uuid).status_code == 202
    assert [rest.ended(uuid)["status"] for uuid in (*running, pending)] == ["cancelled"] * 3


def test_a_task_that_takes_longer_than_it_may_fails(stack, rest):
    for uuid in [rest.start("slow"), rest.start("async_slow")]:
        run = rest.ended(uuid)
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "timeout", 1)


async def test_an_exception_named_in_retry_on_is_tried_again_after_a_delay_that_doubles(stack, rest):
    uuid = rest.start("flaky", failures=2)
    lost = rest.start("flaky", failures=9)
    follower = Follower(lambda: stack.ws_url, uuid)
    await follower.follow()
    run = rest.get(uuid)
    assert (run["status"], run["attempt"], run["messages"]) == ("succeeded", 3, [1, 2, 3])
    check(follower, run)
    first, second, third = (line["at"] for line in stack.executions(uuid))
    assert second - first >= 0.5
    assert third - second >= 1.0
    run = await asyncio.to_thread(rest.ended, lost)
    assert (run["status"], run["attempt"], run["error"]["code"]) == ("failed", 3, "exception")
    assert len(stack.executions(lost)) == 3


@one_database
def test_a_stale_job_does_not_begin_a_run_before_its_time(stack, rest):
    """The sweep may queue a run twice; the second job must not shorten the delay of a retry."""
    script = (
        "from uuid import UUID; from tests.faults.tasks import Brief; from taskapi.backends import get_backend;"
        "info = Brief.start(delay=3600); get_backend().enqueue(info.uuid, queue='default'); print(info.uuid)"
    )
    uuid = stack.manage("shell", "--verbosity=0", "-c", script).split()[-1]
    rest.ended(rest.start("burst", n=3))  # by now a worker has seen the stale job, which came first
    assert rest.get(uuid)["status"] == "pending"
    assert rest.cancel(uuid).json()["status"] == "cancelled"


def test_finished_runs_are_deleted_after_their_time_by_the_sweep(stack, rest):
    brief, kept = rest.start("brief"), rest.start("burst", n=3)
    wait_for(lambda: stack.executions(brief))
    wait_for(lambda: rest.client.get(f"/tasks/{brief}/").status_code == 404)
    assert rest.ended(kept)["status"] == "succeeded"


def test_prunetasks_deletes_what_has_expired_and_nothing_else(stack, rest, gate):
    done, running = rest.start("burst", n=3), rest.start("hold", gate=str(gate))
    rest.ended(done)
    stack.worker_of(running)
    for name in stack.workers:
        stack.pause(name)  # otherwise their sweeps may delete it first
    script = (
        "from taskapi.models import TaskInfo; from django.utils import timezone;"
        f"TaskInfo.objects.filter(uuid__in={json.dumps([done, running])}).update(expires=timezone.now())"
    )
    stack.manage("shell", "--verbosity=0", "-c", script)
    assert "Deleted 1 runs." in stack.manage("prunetasks")
    assert rest.client.get(f"/tasks/{done}/").status_code == 404
    assert rest.get(running)["status"] == "running"
