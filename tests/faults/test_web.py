"""A web server that is killed, and sockets that are cut."""

import asyncio

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.reader import Reader, Waiter


async def test_subscribers_of_a_killed_server_come_back_without_loss_or_repeats(stack, rest):
    uuids = [rest.start("burst", n=120, pause=0.02) for _ in range(5)]
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids for _ in range(3)]
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    stack.kill("web")
    await asyncio.to_thread(stack.start, "web")
    await asyncio.gather(*following)
    for follower in followers:
        run = rest.get(follower.uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)
        check(follower, run)
        assert follower.connections > 1


async def test_a_run_whose_answer_was_lost_is_found_again_by_its_idempotency_key(stack, rest):
    follower = Follower(lambda: stack.ws_url, task="burst", inputs={"n": 50, "pause": 0.02}, idempotency_key="once")
    following = asyncio.create_task(follower.follow())
    await follower.subscribed.wait()
    first, follower.uuid, follower.known, follower.subscriptions = follower.uuid, None, 0, []  # as if no answer came
    follower.cut()
    await following
    assert follower.uuid == first
    check(follower, rest.get(first))
    assert len(stack.executions(first)) == 1


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
async def test_sockets_that_are_cut_again_and_again_miss_nothing(stack, rest):
    uuid = rest.start("burst", n=300, pause=0.01)
    followers = [Follower(lambda: stack.ws_url, uuid) for _ in range(10)]
    following = asyncio.gather(*(follower.follow() for follower in followers))
    for follower in followers * 3:
        await asyncio.wait_for(follower.subscribed.wait(), 20)
        follower.subscribed.clear()
        follower.cut()
    await following
    for follower in followers:
        check(follower, rest.get(uuid))
        assert follower.connections > 3


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
async def test_streams_and_waits_on_a_killed_server_come_back_without_loss_or_repeats(stack, rest):
    uuid = rest.start("burst", n=120, pause=0.02)
    readers = [Reader(lambda: stack.ws_url, uuid) for _ in range(5)]
    waiters = [Waiter(lambda: stack.url, uuid) for _ in range(3)]
    following = [asyncio.create_task(each.follow()) for each in (*readers, *waiters)]
    await asyncio.gather(*(reader.subscribed.wait() for reader in readers))
    await asyncio.gather(*(waiter.begun.wait() for waiter in waiters))
    stack.kill("web")
    await asyncio.to_thread(stack.start, "web")
    await asyncio.gather(*following)
    run = rest.get(uuid)
    assert (run["status"], run["attempt"]) == ("succeeded", 1)
    for reader in readers:
        check(reader, run)
        assert reader.connections > 1
    for waiter in waiters:
        waiter.check(run)
        assert waiter.refused
