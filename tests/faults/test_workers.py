"""Workers that are killed, stopped, or told to end."""

import asyncio
import time

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.stack import EXPIRED
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # leases of 10 s expire here, some of them one after the other

one_database = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
other_database = pytest.mark.parametrize("stack", ["postgres"], indirect=True)


@other_database
async def test_the_runs_of_a_killed_worker_are_taken_up_elsewhere_as_often_as_they_may_be(
    stack, rest, gate, record_property
):
    uuids = {name: rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "precious")}
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids.values()]
    first = stack.worker_of(uuids["hold"])
    others = [name for name in stack.workers if name != first]
    # let both workers be those who hold something, then kill the one after the other
    for uuid in uuids.values():
        stack.worker_of(uuid)
    killed = time.time()
    for name in stack.workers:
        stack.kill(name)
    stack.start_worker(name=others[0])
    taken = stack.worker_of(uuids["hold"], attempt=2)
    record_property("seconds until taken up", time.time() - killed)
    print(f"taken up after {stack.executions(uuids['hold'])[1]['at'] - killed:.1f} s")  # noqa: T201 - seen with -s
    assert taken == others[0]
    assert rest.ended(uuids["precious"], EXPIRED)["error"]["code"] == "worker_lost"  # max_attempts = 1
    wait_for(lambda: len(stack.executions(uuids["async_hold"])) == 2)
    stack.kill(others[0])
    stack.start_worker(name=others[0])
    for name in ("hold", "async_hold"):  # max_attempts = 2
        run = rest.ended(uuids[name], EXPIRED)
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "worker_lost", 2)
        assert [line["attempt"] for line in stack.executions(uuids[name])] == [1, 2]
        assert run["messages"] == ["held 1", "held 2"]
    assert len(stack.executions(uuids["precious"])) == 1
    for follower in followers:
        await follower.follow()
        check(follower, rest.get(follower.uuid))


@other_database
def test_a_zombie_changes_nothing_and_its_tasks_stop(stack, rest, gate):
    stack.kill("two")
    loop, hold, async_hold = (rest.start(name, gate=str(gate)) for name in ("loop", "hold", "async_hold"))
    for uuid in (loop, hold, async_hold):
        assert stack.worker_of(uuid) == "one"
    stack.pause("one")
    stack.start_worker(name="two")
    for uuid in (loop, hold, async_hold):
        assert stack.worker_of(uuid, attempt=2) == "two"
    gate.touch()  # for the second attempts: the zombie, which is stopped, does not see it
    ended = {uuid: rest.ended(uuid) for uuid in (loop, hold, async_hold)}
    assert {run["status"] for run in ended.values()} == {"succeeded"}
    assert {run["outputs"]["attempt"] for run in ended.values()} == {2}
    gate.unlink()
    stack.resume("one")
    wait_for(lambda: [line["attempt"] for line in stack.executions(loop, "Interrupted")] == [1])
    wait_for(lambda: [line["attempt"] for line in stack.executions(async_hold, "cancelled")] == [1])
    gate.touch()  # the deaf one goes on to its next progress call, and no further
    wait_for(lambda: [line["attempt"] for line in stack.executions(hold, "let go")] == [2, 1])
    stack.stop("one")  # whatever it wanted to write, it has tried to when it has ended
    for uuid, run in ended.items():
        assert rest.get(uuid) == run
        assert [line["attempt"] for line in stack.executions(uuid, "ended")] == [2]
    assert ended[hold]["messages"] == ["held 1", "held 2", "let go 2"]


@other_database
def test_a_worker_that_wakes_up_takes_its_own_lost_runs_up_again(stack, rest, gate):
    """They are free, and nobody but the zombie is there to take them: two attempts of a run in one process."""
    stack.kill("two")
    uuids = {name: rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "loop")}
    for uuid in uuids.values():
        stack.worker_of(uuid)
    stack.pause("one")
    stack.start_worker("--queue", "another", name="sweeper")  # frees runs of all queues, takes none of this one
    for uuid in uuids.values():
        rest.until(uuid, lambda run: run["status"] == "pending", EXPIRED)
    stack.resume("one")
    for uuid in uuids.values():
        stack.worker_of(uuid, attempt=2)
    wait_for(lambda: stack.executions(uuids["async_hold"], "cancelled"))
    time.sleep(12)  # the fault, still: longer than a lease, so that it matters which attempt's is renewed
    gate.touch()
    for uuid in uuids.values():
        run = rest.ended(uuid)
        assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
        assert [line["attempt"] for line in stack.executions(uuid)] == [1, 2]
        assert [line["attempt"] for line in stack.executions(uuid, "ended")] == [2]
    assert rest.get(uuids["hold"])["messages"] == ["held 1", "held 2", "let go 2"]
    assert "A run could not be executed" not in stack.processes["one"].output


async def test_a_worker_told_to_end_hands_back_what_is_beyond_its_grace(stack, rest, gate):
    """They are free at once, and not after the lease. A thread that hears nothing ends with its process."""
    for name in stack.workers:
        stack.kill(name)
    stack.start_worker("--grace", "0.1", name="one")
    uuids = [rest.start(name, gate=str(gate)) for name in ("loop", "async_hold", "hold")]
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids]
    for uuid in uuids:
        stack.worker_of(uuid)
    stack.start_worker(name="two")
    assert await asyncio.to_thread(stack.stop, "one") == 0
    for uuid in uuids:
        assert stack.worker_of(uuid, attempt=2) == "two"
    assert "lost its worker" not in stack.processes["two"].output
    gate.touch()
    for uuid, follower in zip(uuids, followers, strict=True):
        run = await asyncio.to_thread(rest.ended, uuid)
        assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
        await follower.follow()
        check(follower, run)
    assert [line["attempt"] for line in stack.executions(uuids[-1], "let go")] == [2]


@one_database
def test_a_worker_of_an_older_deploy_leaves_a_new_task_to_others(stack, rest, gate):
    for name in stack.workers:
        stack.kill(name)
    stack.extra = {"FAULTS_OLD_CODE": "1"}
    try:
        stack.start_worker(name="old")
    finally:
        stack.extra = {}
    gate.touch()
    uuid = rest.start("new", gate=str(gate))
    seen = rest.start("hold", gate=str(gate))
    assert rest.ended(seen)["status"] == "succeeded"  # it works, and it has looked at the new task first
    assert rest.get(uuid)["status"] == "pending"
    stack.start_worker(name="one")
    run = rest.ended(uuid, 60)  # the two are asked in turn, 5 s apart, and which is first is a matter of luck
    assert (run["status"], run["attempt"]) == ("succeeded", 1)
