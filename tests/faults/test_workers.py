"""Workers that are killed, frozen, or told to end."""

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.faults.follower import Follower
from tests.faults.lost import LostWorkers
from tests.faults.promises import check
from tests.faults.stack import EXPIRED, TAKEN_UP
from tests.support.databases import Databases
from tests.support.processes import is_there
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # leases of 10 s expire here, some one after the other

one_database = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
other_database = pytest.mark.parametrize("stack", ["postgres"], indirect=True)


@pytest.fixture(scope="module")
def lost(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LostWorkers]:
    """Three workers that were lost, and whose runs were taken up. Each test looks at other runs of theirs."""
    lost = LostWorkers(databases, tmp_path_factory.mktemp("lost"))
    with lost.begun():
        yield lost


async def test_the_runs_of_a_killed_worker_are_taken_up_elsewhere_in_time(lost):
    uuids = [lost.killed[name] for name in ("hold", "async_hold")]
    for uuid in uuids:
        assert lost.stack.worker_of(uuid, attempt=2) == "rescuer"
        assert lost.seconds_until(lost.stack.executions(uuid)[1]["taken"]) < TAKEN_UP
    followers = [Follower(lambda: lost.stack.ws_url, uuid) for uuid in uuids]
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    lost.gates["killed"].touch()
    await asyncio.gather(*following)
    for follower in followers:
        run = lost.rest.get(follower.uuid)
        assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
        assert [line["attempt"] for line in lost.stack.executions(follower.uuid)] == [1, 2]
        check(follower, run)


def test_a_run_is_executed_as_often_as_it_may_be_whatever_ended_its_attempts(lost):
    for uuid, attempts in ((lost.killed["precious"], [1]), (lost.spent, [1, 2])):
        run = lost.rest.ended(uuid, EXPIRED)
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "worker_lost", attempts[-1])
        assert lost.seconds_until(datetime.fromisoformat(run["finished"]).timestamp()) < TAKEN_UP
        assert [line["attempt"] for line in lost.stack.executions(uuid)] == attempts
        assert lost.stack.executions(uuid, "ended") == []


def test_a_run_that_was_cancelled_and_then_lost_its_worker_is_not_tried_again(lost):
    assert lost.rest.ended(lost.cancelled, EXPIRED)["status"] == "cancelled"
    assert len(lost.stack.executions(lost.cancelled)) == 1


def test_a_row_that_a_lost_worker_has_locked_keeps_nobody_else_waiting(lost):
    """While the row was locked, other lost runs were taken up, and so was a pending run without a job."""
    assert lost.rest.ended(lost.pending)["status"] == "succeeded"
    assert lost.stack.executions(lost.pending)[0]["at"] < lost.unlocked_at
    assert lost.stack.executions(lost.killed["hold"])[1]["at"] < lost.unlocked_at
    assert lost.stack.worker_of(lost.locked, attempt=2) == "rescuer"
    assert lost.stack.executions(lost.locked)[1]["at"] > lost.unlocked_at


def test_a_run_that_cannot_be_deleted_keeps_no_lost_run_waiting(lost):
    """It expired before the lost runs were taken up."""
    wait_for(lambda: lost.rest.client.get(f"/tasks/{lost.expired}/").status_code == 404)
    assert lost.rest.get(lost.kept)["status"] == "succeeded"
    assert lost.stack.processes["rescuer"].output.count("cannot be deleted") == 1


async def test_a_zombie_changes_nothing_and_its_tasks_stop(lost):
    stack, rest, isolated = lost.stack, lost.rest, lost.isolated
    follower = Follower(lambda: stack.ws_url, isolated)
    following = asyncio.create_task(follower.follow())
    await follower.subscribed.wait()
    hold, async_hold, loop = (lost.frozen[name] for name in ("hold", "async_hold", "loop"))
    for uuid in (loop, hold, async_hold):
        assert stack.worker_of(uuid, attempt=2) == "rescuer"
    wait_for(lambda: len(stack.executions(isolated)) == 2, EXPIRED)
    gate = lost.gates["frozen"]
    gate.touch()  # for the second attempts: the frozen zombie does not see it
    ended = {uuid: rest.ended(uuid) for uuid in (loop, hold, async_hold)}
    assert {run["status"] for run in ended.values()} == {"succeeded"}
    assert {run["outputs"]["attempt"] for run in ended.values()} == {2}
    gate.unlink()
    stack.resume("frozen")
    wait_for(lambda: [line["attempt"] for line in stack.executions(loop, "Interrupted")] == [1])
    wait_for(lambda: [line["attempt"] for line in stack.executions(async_hold, "cancelled")] == [1])
    wait_for(lambda: [line["attempt"] for line in stack.executions(isolated, "Interrupted")] == [1])
    wait_for(lambda: not is_there(lost.isolated_pid))
    lost.gates["isolated"].touch()
    await following
    ended[isolated] = rest.get(isolated)
    assert ended[isolated]["outputs"] == {"attempt": 2}
    check(follower, ended[isolated])
    gate.touch()  # `hold` goes on to its next progress call, and no further
    wait_for(lambda: [line["attempt"] for line in stack.executions(hold, "let go")] == [2, 1])
    stack.stop("frozen")  # when it has ended, it has tried all its writes
    for uuid, run in ended.items():
        assert rest.get(uuid) == run
        assert [line["attempt"] for line in stack.executions(uuid, "ended")] == [2]
    assert ended[hold]["messages"] == ["held 1", "held 2", "let go 2"]


async def test_a_process_ends_with_its_killed_worker_whatever_it_does(lost):
    wait_for(lambda: not is_there(lost.stuck_pid))
    run = await asyncio.to_thread(lost.rest.ended, lost.stuck, EXPIRED)
    assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
    assert run["messages"] == ["attempt 1", "attempt 2"]


def test_a_worker_that_wakes_up_takes_its_own_lost_runs_up_again(lost):
    """The zombie is the only worker that can take them: two attempts of a run are in one process."""
    stack, rest = lost.stack, lost.rest
    for uuid in lost.alone.values():
        rest.until(uuid, lambda run: run["status"] == "pending", EXPIRED)
    stack.resume("alone")
    for uuid in lost.alone.values():
        assert stack.worker_of(uuid, attempt=2) == "alone"
    wait_for(lambda: stack.executions(lost.alone["own_async_hold"], "cancelled"))
    lost.gates["alone"].touch()
    check_taken_up_again(stack, rest, lost.alone.values())


def check_taken_up_again(stack, rest, uuids):
    for uuid in uuids:
        run = rest.ended(uuid)
        assert (run["status"], run["outputs"]) == ("succeeded", {"attempt": 2})
        assert [line["attempt"] for line in stack.executions(uuid)] == [1, 2]
        assert [line["attempt"] for line in stack.executions(uuid, "ended")] == [2]


@pytest.mark.long
@other_database
def test_a_run_that_loses_one_worker_after_the_other_is_executed_as_often_as_it_may_be(stack, rest, gate):
    uuids = [rest.start(name, gate=str(gate)) for name in ("hold", "async_hold")]  # max_attempts = 2
    for uuid in uuids:
        rest.until(uuid, lambda run: run["messages"] == ["held 1"])
    for name in stack.workers:
        stack.kill(name)
    stack.start("one")
    for uuid in uuids:
        assert stack.worker_of(uuid, attempt=2) == "one"
        rest.until(uuid, lambda run: run["messages"] == ["held 1", "held 2"])
    stack.kill("one")
    stack.start("one")
    for uuid in uuids:
        run = rest.ended(uuid, EXPIRED)
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "worker_lost", 2)
        assert [line["attempt"] for line in stack.executions(uuid)] == [1, 2]
        assert run["messages"] == ["held 1", "held 2"]


@pytest.mark.long
@other_database
def test_the_second_attempt_in_a_process_that_was_frozen_keeps_its_lease(stack, rest, gate):
    stack.kill("two")
    uuids = {name: rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "loop")}
    for uuid in uuids.values():
        stack.worker_of(uuid)
    rest.until(uuids["hold"], lambda run: run["messages"] == ["held 1"])
    stack.pause("one")
    stack.start_worker("--queue", "another", name="sweeper")  # takes back runs of all queues, executes none of this one
    for uuid in uuids.values():
        rest.until(uuid, lambda run: run["status"] == "pending", EXPIRED)
    stack.resume("one")
    for uuid in uuids.values():
        stack.worker_of(uuid, attempt=2)
    wait_for(lambda: stack.executions(uuids["async_hold"], "cancelled"))
    time.sleep(12)  # longer than a lease, so that it matters whose lease is renewed
    gate.touch()
    check_taken_up_again(stack, rest, uuids.values())
    assert rest.get(uuids["hold"])["messages"] == ["held 1", "held 2", "let go 2"]
    assert "A run could not be executed" not in stack.processes["one"].output


async def test_a_worker_told_to_end_hands_back_what_is_beyond_its_grace(stack, rest, gate):
    """They are free at once, and not after the lease. A thread that never checks ends with its process."""
    for name in stack.workers:
        stack.kill(name)
    stack.start_worker("--grace", "0.1", name="one")
    uuids = [rest.start(name, gate=str(gate)) for name in ("loop", "async_hold", "hold")]
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids]
    for uuid in uuids:
        stack.worker_of(uuid)
    stack.start("two")
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
    assert rest.ended(seen)["status"] == "succeeded"  # it works, and it saw the new task first
    assert rest.get(uuid)["status"] == "pending"
    stack.start("one")
    run = rest.ended(uuid)  # the old worker has set it aside
    assert (run["status"], run["attempt"]) == ("succeeded", 1)
