"""A Redis that is flushed, that stops and comes back empty, or that hangs."""

import asyncio
import time

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.reader import Reader, Waiter
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


def pids(stack):
    return {name: process.popen.pid for name, process in stack.processes.items()}


def living(stack):
    return {name: process.popen.pid for name, process in stack.processes.items() if process.popen.poll() is None}


def test_pending_runs_complete_after_a_flush(stack, rest, gate):
    for name in stack.workers:
        stack.kill(name)
    uuids = [rest.start("hold", gate=str(gate)) for _ in range(20)]
    stack.flush()
    gate.touch()
    stack.heal()
    for uuid in uuids:
        run = rest.ended(uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)
        assert len(stack.executions(uuid)) == 1


async def test_an_outage_of_redis_is_outlived_by_runs_and_sockets(stack, rest, gate):
    """Redis stops for 5 s, while runs are pending and running, and comes back empty; new runs are accepted."""
    before = pids(stack)
    running = [rest.start("burst", n=60, pause=0.1) for _ in range(2)]
    running += [rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "loop")]
    for uuid in running:
        stack.worker_of(uuid)
    waiting = [rest.start("hold", gate=str(gate)) for _ in range(20)]  # more than both workers execute at once
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in running + waiting]
    followers += [Reader(lambda: stack.ws_url, uuid) for uuid in running]
    waiters = [Waiter(lambda: stack.url, uuid) for uuid in running]
    following = [asyncio.create_task(follower.follow()) for follower in (*followers, *waiters)]
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    await asyncio.gather(*(waiter.begun.wait() for waiter in waiters))
    stack.stop_valkey()
    outage = asyncio.create_task(asyncio.sleep(5))  # the duration of the fault
    late = [await asyncio.to_thread(rest.start, "burst", n=10) for _ in range(3)]
    started = Follower(lambda: stack.ws_url, task="burst", inputs={"n": 10})
    following.append(asyncio.create_task(started.follow()))
    await asyncio.wait_for(started.subscribed.wait(), 15)  # accepted, although Redis is down
    await outage
    assert rest.get(late[0])["status"] == "pending"
    stack.valkey.start()
    gate.touch()
    await asyncio.gather(*following)
    for follower in (*followers, started):
        run = rest.get(follower.uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)
        check(follower, run)
        assert follower.connections == 1, "its connection was closed, and should have stayed open"
    for waiter in waiters:
        waiter.check(rest.get(waiter.uuid))
        assert not waiter.refused
    for uuid in late:
        assert (await asyncio.to_thread(rest.ended, uuid))["status"] == "succeeded"
    for uuid in (*running, *waiting, *late):
        assert len(stack.executions(uuid)) == 1
    assert living(stack) == before


async def test_a_redis_that_hangs_holds_up_nothing_that_is_recorded(stack, rest, gate):
    """Redis accepts connections and answers nothing: runs end, new ones are accepted, followers are told."""
    before = pids(stack)
    running = [rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "loop")]
    for uuid in running:
        stack.worker_of(uuid)
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in running]
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    stack.pause_valkey()
    gate.touch()
    await asyncio.gather(*following)  # they hear of the end while it hangs, from the rows
    started = Follower(lambda: stack.ws_url, task="burst", inputs={"n": 10})
    following = asyncio.create_task(started.follow())
    await asyncio.wait_for(started.subscribed.wait(), 15)
    stack.resume_valkey()
    await following
    for follower in (*followers, started):
        run = rest.get(follower.uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)
        check(follower, run)
    assert living(stack) == before


@pytest.mark.long
@pytest.mark.parametrize("stack", ["postgres"], indirect=True)
def test_a_worker_that_is_lost_while_redis_is_away_is_noticed_in_time(stack, rest, gate):
    waiting = "from tests.faults.tasks import Brief; Brief.start(delay=3600)"  # the sweeps ask Redis for its job
    stack.manage("shell", "--verbosity=0", "-c", waiting)
    stack.kill("two")
    uuid = rest.start("precious", gate=str(gate))  # max_attempts = 1: it fails without any help of Redis
    stack.worker_of(uuid)
    stack.start("two")
    stack.stop_valkey()
    stack.kill("one")
    assert rest.ended(uuid, 25)["error"]["code"] == "worker_lost"


async def test_what_follows_an_outage_is_as_quick_as_before(stack, rest, gate):
    """Jobs, events and cancel requests arrive again, without waiting for the sweep or the watch."""
    uuid = rest.start("burst", n=1)
    rest.ended(uuid)
    stack.stop_valkey()
    stack.valkey.start()
    wait_for(lambda: all(_cancelled_by_event(stack, rest, gate) for _ in range(5)), 60)


def _cancelled_by_event(stack, rest, gate):
    """Whether an event tells a sync task of a cancel request: the lease would take up to 3 s to do so."""
    uuid = rest.start("loop", gate=str(gate))
    stack.worker_of(uuid)
    asked = time.time()
    rest.cancel(uuid)
    rest.ended(uuid)
    return stack.executions(uuid, "Interrupted")[0]["at"] - asked < 0.5
