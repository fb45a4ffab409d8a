"""What counts as an attempt, if workers are restarted, killed, or killed by a run."""

import asyncio
import os
import signal
from datetime import datetime
from itertools import cycle

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.stack import EXPIRED
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.parametrize("stack", ["postgres"], indirect=True)]


@pytest.fixture
def parent(stack):
    """The parent of two worker processes; no other worker runs."""
    for name in stack.workers:
        stack.kill(name)
    stack.start_worker("--processes", "2", "--grace", "1", name="parent")
    parent = stack.processes["parent"]
    wait_for(lambda: parent.output.count("takes runs from") == 2)
    yield parent
    stack.stop("parent")  # not killed: its children would take runs for a moment longer


def began(stack, uuid, attempt=1):
    """The line that the attempt wrote when it began, once it exists."""

    def look():
        return next((line for line in stack.executions(uuid) if line["attempt"] == attempt), None)

    return wait_for(look, EXPIRED)


def hold_both(stack, rest, gate):
    """Start runs that wait at the gate, until both processes execute some; the id of the process, by run."""
    pids, names = {}, cycle(("hold", "async_hold"))
    while len(pids) < 6 or len(set(pids.values())) < 2:
        uuid = rest.start(next(names), gate=str(gate))  # max_attempts = 2
        pids[uuid] = began(stack, uuid)["pid"]
    return pids


def leases(stack, uuids):
    """When the lease of each of these runs expires: in seven to ten seconds, if nothing renews it."""
    with stack.connect() as connection:
        query = "SELECT uuid::text, renewed + interval '10 s' FROM taskapi_taskinfo WHERE uuid = ANY(%s::uuid[])"
        return dict(connection.execute(query, [uuids]).fetchall())


async def test_the_runs_of_a_killed_process_are_taken_up_at_once_where_its_parent_lives(stack, rest, gate, parent):
    first = hold_both(stack, rest, gate)
    uuids = list(first)
    killed = first[uuids[0]]
    theirs = [uuid for uuid, pid in first.items() if pid == killed]
    follower = Follower(lambda: stack.ws_url, uuids[0])
    following = asyncio.create_task(follower.follow())
    await follower.subscribed.wait()
    held_until = leases(stack, theirs)
    os.kill(killed, signal.SIGKILL)
    for uuid in theirs:
        run = await asyncio.to_thread(rest.until, uuid, lambda run: run["attempt"] == 2, EXPIRED)
        assert datetime.fromisoformat(run["started"]) < held_until[uuid]
        assert (await asyncio.to_thread(began, stack, uuid, 2))["pid"] not in (killed, parent.popen.pid)
    gate.touch()
    for uuid in uuids:
        run = await asyncio.to_thread(rest.ended, uuid, EXPIRED)
        assert (run["status"], run["attempt"]) == ("succeeded", 2 if uuid in theirs else 1)
    await following
    check(follower, rest.get(uuids[0]))


def test_a_run_that_kills_its_worker_takes_its_neighbours_along_once(stack, rest, gate, parent):
    """Only once: afterwards it has its own process, and so have they, because any of them may have been the cause."""
    beside = hold_both(stack, rest, gate)
    deadly = rest.start("deadly")
    run = rest.ended(deadly, EXPIRED)
    assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "process_lost", 3)
    first, *later = stack.executions(deadly)
    neighbours = [uuid for uuid, pid in beside.items() if pid == first["pid"]]
    assert first["pid"] == first["worker"]
    assert neighbours
    assert all(line["pid"] != line["worker"] for line in later)
    for uuid in neighbours:
        again = began(stack, uuid, attempt=2)
        assert again["pid"] != again["worker"]
    gate.touch()
    for uuid in beside:
        run = rest.ended(uuid, EXPIRED)
        assert (run["status"], run["attempt"]) == ("succeeded", 2 if uuid in neighbours else 1)
    assert parent.output.count("starting another") == 1


def test_workers_that_are_restarted_take_no_attempt_from_their_runs(stack, rest, gate):
    for name in stack.workers:
        stack.kill(name)
    uuids = [rest.start(name, gate=str(gate)) for name in ("loop", "async_hold")]  # max_attempts = 3, and 2
    for attempt in range(1, 5):
        stack.start_worker("--grace", "0", name="one")
        for uuid in uuids:
            assert stack.worker_of(uuid, attempt=attempt) == "one"
        if attempt < 4:
            assert stack.stop("one", signal.SIGTERM if attempt % 2 else signal.SIGINT) == 0
    gate.touch()
    for uuid in uuids:
        run = rest.ended(uuid, EXPIRED)
        assert (run["status"], run["outputs"], run["attempt"]) == ("succeeded", {"attempt": 4}, 4)
