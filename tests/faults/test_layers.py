"""Channel layers that lose events: followers get these from the database."""

import asyncio

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.reader import Reader, Waiter
from tests.support.waiting import until


def with_layer(name):
    return pytest.mark.parametrize("stack", [pytest.param(("sqlite", name), id=f"sqlite-{name}")], indirect=True)


async def follow(stack, uuid, count=3):
    followers = [Follower(lambda: stack.ws_url, uuid) for _ in range(count)]
    await asyncio.gather(*(follower.follow() for follower in followers))
    return followers


@with_layer("core")
async def test_a_burst_through_a_core_layer_that_holds_ten_is_complete_and_in_order(stack, rest):
    """The web server is frozen for a moment, and its channel overflows."""
    before = stack.drops()
    uuids = [rest.start("burst", n=500, pause=0.005) for _ in range(2)]
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids * 3]
    followers += [Reader(lambda: stack.ws_url, uuid) for uuid in uuids * 2]
    following = asyncio.gather(*(follower.follow() for follower in followers))
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    stack.pause("web")
    try:
        await until(lambda: stack.drops() >= before + 10)
    finally:
        stack.resume("web")
    await following
    for follower in followers:
        check(follower, rest.get(follower.uuid))


@with_layer("deaf")
async def test_without_a_single_event_everything_arrives_all_the_same(stack, rest):
    """The last event arrives as well, although no later one can show that it is missing."""
    for follower in await follow(stack, rest.start("burst", n=20, pause=0.05)):
        check(follower, rest.get(follower.uuid))


@with_layer("deaf")
async def test_without_a_single_event_streams_and_waits_are_told_all_the_same(stack, rest):
    uuid = rest.start("burst", n=20, pause=0.05)
    reader, waiter = Reader(lambda: stack.ws_url, uuid), Waiter(lambda: stack.url, uuid)
    await asyncio.gather(reader.follow(), waiter.follow())
    check(reader, rest.get(uuid))
    waiter.check(rest.get(uuid))


@with_layer("last-only")
async def test_the_last_progress_arrives_before_finished_though_its_own_event_was_lost(stack, rest, gate):
    followers = [Follower(lambda: stack.ws_url, rest.start("half_way", gate=str(gate))) for _ in range(5)]
    following = asyncio.gather(*(follower.follow() for follower in followers))
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    gate.touch()
    await following
    for follower in followers:
        check(follower, rest.get(follower.uuid))


@with_layer("core")
async def test_followers_hear_of_the_end_after_a_flush(stack, rest, gate):
    """The core layer keeps its groups in Redis: after a flush the server is in none, and does not know it."""
    uuid = rest.start("hold", gate=str(gate))
    followers = [kind(lambda: stack.ws_url, uuid) for kind in (Follower, Reader)]
    waiter = Waiter(lambda: stack.url, uuid)
    following = asyncio.gather(*(each.follow() for each in (*followers, waiter)))
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers), waiter.begun.wait())
    stack.worker_of(uuid)
    stack.flush()
    gate.touch()
    await following
    for follower in followers:
        check(follower, rest.get(uuid))
    waiter.check(rest.get(uuid))
