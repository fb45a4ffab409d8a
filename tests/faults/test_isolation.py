"""Runs in processes of their own: the process is killed, or its worker is told to end. More in test_workers.py."""

import asyncio
import os
import signal

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.stack import EXPIRED
from tests.support.processes import is_there, zombies_of
from tests.support.waiting import until, wait_for

pytestmark = pytest.mark.parametrize("stack", ["postgres"], indirect=True)


def pid_of(stack, uuid, attempt=1, what="began", limit=EXPIRED):
    """The process in which this attempt wrote that line."""

    def look():
        return next((line["pid"] for line in stack.executions(uuid, what) if line["attempt"] == attempt), None)

    return wait_for(look, limit)


def alone_with_one_worker(stack, *options):
    for name in stack.workers:
        stack.kill(name)
    stack.start_worker(*options, name="one")


async def test_a_worker_told_to_end_kills_what_does_not_and_hands_its_run_back(stack, rest):
    alone_with_one_worker(stack, "--grace", "0.1")
    uuid = rest.start("stuck")
    follower = Follower(lambda: stack.ws_url, uuid)
    pids = [pid_of(stack, uuid), pid_of(stack, uuid, what="child")]
    stack.start_worker(name="two")
    assert await asyncio.to_thread(stack.stop, "one") == 0
    await until(lambda: not any(is_there(pid) for pid in pids))
    run = await asyncio.to_thread(rest.ended, uuid)
    assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
    assert "lost its worker" not in stack.processes["two"].output
    await follower.follow()
    check(follower, run)


def test_a_task_that_calls_nothing_is_cancelled_for_real(stack, rest):
    uuid = rest.start("stuck")
    pids = [pid_of(stack, uuid), pid_of(stack, uuid, what="child")]
    assert rest.cancel(uuid).json()["cancel_requested"] is True
    run = rest.ended(uuid)
    assert (run["status"], run["attempt"]) == ("cancelled", 1)
    wait_for(lambda: not any(is_there(pid) for pid in pids))


async def test_a_process_that_is_killed_is_lost_alone(stack, rest, gate):
    alone_with_one_worker(stack)
    other = rest.start("hold", gate=str(gate))
    worker = stack.processes[stack.worker_of(other)].popen.pid
    uuid = rest.start("alone", gate=str(gate))
    follower = Follower(lambda: stack.ws_url, uuid)
    following = asyncio.create_task(follower.follow())
    await follower.subscribed.wait()
    first = await asyncio.to_thread(pid_of, stack, uuid)
    rest.until(uuid, lambda run: run["message_count"] > 0)
    os.kill(first, signal.SIGKILL)
    second = await asyncio.to_thread(pid_of, stack, uuid, attempt=2)
    assert first != second
    assert f"The process of run {uuid} ended with -9" in stack.processes["one"].output
    gate.touch()
    run = await asyncio.to_thread(rest.ended, uuid)
    assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
    assert (await asyncio.to_thread(rest.ended, other))["attempt"] == 1
    await following
    check(follower, run)
    wait_for(lambda: not is_there(second))
    assert wait_for(lambda: zombies_of(worker) == [])
