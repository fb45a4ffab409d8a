"""A PostgreSQL that restarts, holds locks, loses answers, or goes silent while all others run."""

import asyncio
import json
from datetime import timedelta

import pytest

from tests.faults.follower import Follower
from tests.faults.promises import check
from tests.faults.proxy import Proxy
from tests.faults.reader import Reader, Waiter
from tests.support.socket import open_socket
from tests.support.waiting import until, wait_for

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("stack", ["postgres"], indirect=True),  # SQLite is a file: there is nothing to restart
]


async def test_a_result_that_is_computed_while_the_database_is_away_is_not_lost(stack, rest, gate):
    before = {name: process.popen.pid for name, process in stack.processes.items()}
    uuids = [rest.start(name, gate=str(gate)) for name in ("hold", "async_hold", "loop")]
    uuids.append(rest.start("burst", n=60, pause=0.1))
    for uuid in uuids:
        stack.worker_of(uuid)
    followers = [Follower(lambda: stack.ws_url, uuid) for uuid in uuids]
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    await asyncio.gather(*(follower.subscribed.wait() for follower in followers))
    stack.stop_postgres()
    gate.touch()
    for uuid in uuids[:3]:
        wait_for(lambda uuid=uuid: stack.executions(uuid, "ended"))
    stack.start_postgres()
    await asyncio.gather(*following)
    for follower in followers:
        run = rest.get(follower.uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)
        check(follower, run)
        assert follower.connections == 1, "its socket was closed, and should have stayed open"
        assert len(stack.executions(follower.uuid)) == 1
    assert before == {n: p.popen.pid for n, p in stack.processes.items() if p.popen.poll() is None}


@pytest.mark.parametrize("kind", ["subscribe", "run"])
async def test_the_first_frame_after_a_restart_is_served_like_any_other(stack, rest, kind):
    uuid = rest.start("burst", n=3)
    rest.ended(uuid)
    frame = {"subscribe": {"uuid": uuid, "after": 0}, "run": {"task": "burst", "inputs": {"n": 3}}}[kind]
    async with open_socket(stack.ws_url) as socket:
        await socket.send(type=kind, ref="1", **frame)
        await socket.receive_until("finished")
        stack.stop_postgres()
        await asyncio.sleep(1.5)  # the outage
        stack.start_postgres()
        await socket.send(type=kind, ref="2", **frame)
        assert (await socket.receive())["type"] in ("snapshot", "accepted")


async def test_a_frame_during_an_outage_is_answered_and_the_socket_stays(stack, rest):
    uuid = rest.start("burst", n=3)
    rest.ended(uuid)
    async with open_socket(stack.ws_url) as socket:
        stack.stop_postgres()
        await socket.send(type="subscribe", ref="1", uuid=uuid, after=0)
        answer = await socket.receive()
        assert (answer["type"], answer["code"]) == ("error", "unavailable")
        stack.start_postgres()
        await socket.send(type="subscribe", ref="2", uuid=uuid, after=0)
        assert [frame["type"] for frame in await socket.receive_until("finished")] == ["snapshot", "finished"]


CALLS = {
    "start": ("POST", "/tasks/", {"task": "burst", "inputs": {"n": 1}}),
    "poll": ("GET", "/tasks/RUN/", None),
    "wait": ("GET", "/tasks/RUN/", None),
    "stream": ("GET", "/tasks/RUN/events/", None),
    "cancel": ("POST", "/tasks/RUN/cancel/", {}),
    "retry": ("POST", "/tasks/RUN/retry/", {}),
}


async def test_each_call_during_an_outage_says_when_to_come_back_and_the_first_one_after_it_is_served(
    stack, rest, gate
):
    uuid = rest.start("hold", gate=str(gate))
    stack.worker_of(uuid)
    for _ in range(12):
        rest.get(uuid)  # each thread that answers polls has a connection
    reader, waiter = Reader(lambda: stack.ws_url, uuid), Waiter(lambda: stack.url, uuid)
    following = asyncio.gather(reader.follow(), waiter.follow())
    await asyncio.gather(reader.subscribed.wait(), waiter.begun.wait())
    stack.stop_postgres()
    for name, (method, path, body) in CALLS.items():
        for accept in ("application/json", "application/problem+json") * 2:
            headers = {"Accept": accept} | ({"Prefer": "wait=20"} if name == "wait" else {})
            answer = rest.client.request(method, path.replace("RUN", uuid), json=body, headers=headers)
            assert (answer.status_code, answer.headers["Content-Type"]) == (503, accept), name
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["code"] == "unavailable"
    stack.start_postgres()
    for _ in range(12):
        assert rest.client.get(f"/tasks/{uuid}/").status_code == 200
    gate.touch()
    await following
    run = rest.get(uuid)
    assert (run["status"], run["attempt"]) == ("succeeded", 1)
    check(reader, run)
    assert reader.connections == 1, "the stream was ended, and should have gone on"
    waiter.check(run)


def test_the_first_async_task_after_a_restart_finds_a_connection(stack, rest):
    """All async tasks share one connection, which nothing else uses: nothing else notices that it is dead."""
    assert rest.ended(rest.start("async_query"))["status"] == "succeeded"
    stack.stop_postgres()
    stack.start_postgres()
    run = rest.ended(rest.start("async_query"))
    assert (run["status"], run["attempt"]) == ("succeeded", 1), run["error"]


def test_a_lease_is_renewed_beside_a_row_that_is_locked(stack, rest, gate):
    """The ledger locks rows in its own order: a renewal that held one row and waited for another could deadlock."""
    runs = [rest.start("hold", gate=str(gate)) for _ in range(3)]
    for uuid in runs:
        stack.worker_of(uuid)

    def renewed(uuid):
        return database.execute("SELECT renewed FROM taskapi_taskinfo WHERE uuid = %s", [uuid]).fetchone()[0]

    with stack.connect() as database:
        for locked in (runs[0], runs[2]):  # before the others, and after them
            with stack.locked(locked):
                free = [uuid for uuid in runs if uuid != locked]
                before = {uuid: renewed(uuid) for uuid in free}
                for uuid in free:  # twice: one renewal may have been under way
                    wait_for(lambda uuid=uuid: renewed(uuid) - before[uuid] > timedelta(seconds=4), 12)  # noqa: B023
    gate.touch()
    for uuid in runs:
        run = rest.ended(uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1)


def test_a_request_during_an_outage_is_answered_503(stack, rest):
    uuid = rest.start("burst", n=3)
    rest.ended(uuid)
    stack.stop_postgres()
    body = {"task": "burst", "inputs": {"n": 3}}
    answers = [
        rest.client.get(f"/tasks/{uuid}/"), rest.client.post("/tasks/", json=body), rest.cancel(uuid)
    ]  # fmt: skip
    stack.start_postgres()
    for answer in answers:
        assert answer.status_code == 503
        said = {"detail": "The server could not do this now. Try again later.", "code": "unavailable"}
        assert answer.json() == said
    assert rest.get(uuid)["status"] == "succeeded"


def test_connections_that_are_cut_while_rows_are_written_change_nothing(stack, rest):
    """Connections are cut again and again: each write counts once, however often it is tried."""
    uuids = [rest.start("burst", n=150, pause=0.02) for _ in range(6)]
    for uuid in uuids:
        stack.worker_of(uuid)
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
    )
    unfinished = "SELECT count(*) FROM taskapi_taskinfo WHERE uuid = ANY(%s) AND finished IS NULL"
    with stack.connect() as connection:

        def all_ended():
            connection.execute(cut)
            return connection.execute(unfinished, [uuids]).fetchone() == (0,)

        wait_for(all_ended, 60)
    for uuid in uuids:
        run = rest.ended(uuid)
        assert (run["status"], run["attempt"]) == ("succeeded", 1), run["error"]
        assert run["messages"] == list(range(150))


async def test_a_cancel_of_a_locked_run_holds_up_no_other_socket(stack, rest, gate):
    """As if a view does `with atomic(): info.cancel()` and takes long to commit."""
    locked, other = (rest.start("hold", gate=str(gate)) for _ in range(2))
    for uuid in (locked, other):
        stack.worker_of(uuid)
    async with open_socket(stack.ws_url) as waiting, open_socket(stack.ws_url) as socket:
        with stack.locked(locked):
            await waiting.send(type="cancel", ref="1", uuid=locked)
            for kind, answer in (("subscribe", "snapshot"), ("cancel", "cancelling")):
                await socket.send(type=kind, ref="2", uuid=other)
                assert (await socket.receive())["type"] == answer
            await socket.send(type="run", ref="3", task="burst", inputs={"n": 3})
            await socket.receive_until("accepted")
        assert (await waiting.receive())["type"] == "cancelling"
    gate.touch()
    assert rest.ended(locked)["cancel_requested"]


def test_a_locked_run_keeps_no_other_run_of_its_worker_waiting(stack, rest):
    for name in stack.workers[1:]:
        stack.kill(name)
    locked, other = (rest.start("burst", n=300, pause=0.02) for _ in range(2))
    for uuid in (locked, other):
        rest.until(uuid, lambda run: run["message_count"] > 0)
    with stack.locked(locked):
        said = rest.get(other)["message_count"]
        rest.until(other, lambda run: run["message_count"] > said + 40)
        assert rest.get(locked)["status"] == "running"
    for uuid in (locked, other):
        run = rest.ended(uuid, 30)
        assert (run["status"], run["attempt"], run["messages"]) == ("succeeded", 1, list(range(300)))


async def test_a_run_that_is_deleted_stops_and_its_followers_are_told(stack, rest, gate):
    uuid = rest.start("loop", gate=str(gate))
    stack.worker_of(uuid)
    async with open_socket(stack.ws_url) as socket:
        await socket.send(type="subscribe", ref="1", uuid=uuid, after=0)
        await socket.receive_until("snapshot")
        code = f"from taskapi.models import TaskInfo; TaskInfo.objects.filter(uuid='{uuid}').delete()"
        await asyncio.to_thread(stack.manage, "shell", "-c", code)
        told = await patiently(socket, "error")
        assert (told["uuid"], told["code"]) == (uuid, "not_found")
    await until(lambda: stack.executions(uuid, "Interrupted"))


@pytest.fixture
def proxy(stack):
    """A proxy between the only worker and its database."""
    for name in stack.workers:
        stack.kill(name)
    with Proxy(stack.database["HOST"]) as proxy:
        stack.extra = {"TEST_DATABASE": json.dumps(stack.database | {"HOST": proxy.host})}
        stack.start_worker(name="one")
        stack.extra = {}
        yield proxy
        stack.kill("one")


@pytest.fixture
def busy(stack, rest, gate, proxy):
    """The worker executes another run all the time."""
    uuid = rest.start("hold", gate=str(gate))
    stack.worker_of(uuid)
    rest.until(uuid, lambda run: run["message_count"] == 1)


@pytest.mark.long
@pytest.mark.usefixtures("busy")
def test_a_run_whose_beginning_was_committed_without_an_answer_is_executed(stack, rest, proxy):
    first = proxy.commits
    proxy.loses = lambda commit: commit == first
    uuid = rest.start("burst", n=3)
    wait_for(lambda: proxy.lost)
    run = rest.ended(uuid, 40)
    assert (run["status"], run["messages"]) == ("succeeded", [0, 1, 2])
    assert len(stack.executions(uuid)) == 1


@pytest.mark.usefixtures("busy")
def test_messages_and_results_that_were_committed_without_an_answer_are_recorded_once(stack, rest, proxy):
    uuid = rest.start("burst", n=40, pause=0.02)
    stack.worker_of(uuid)
    proxy.loses = lambda commit: commit % 2 == 0
    run = rest.ended(uuid, 30)
    assert proxy.lost > 2
    assert (run["status"], run["attempt"], run["error"]) == ("succeeded", 1, None)
    assert run["messages"] == list(range(40))


# A host that disappears: its connections stay open


@pytest.fixture
def behind(stack):
    """A proxy between the database and the only worker and web server."""
    for name in (*stack.workers, *stack.ports):
        stack.kill(name)
    with Proxy(stack.database["HOST"]) as proxy:
        stack.extra = {"TEST_DATABASE": json.dumps(stack.database | {"HOST": proxy.host})}
        stack.start("one", "web")
        stack.extra = {}
        yield proxy
        stack.kill("one")
        stack.kill("web")


async def test_a_database_that_goes_silent_is_given_up_by_worker_and_sockets(stack, rest, gate, behind):
    uuid = rest.start("hold", gate=str(gate))
    rest.until(uuid, lambda run: run["message_count"] == 1)
    async with open_socket(stack.ws_url) as socket:
        await socket.send(type="subscribe", ref="1", uuid=uuid, after=0)
        await socket.receive_until("snapshot")
        behind.go_silent()
        gate.touch()
        for name in ("one", "web"):
            await until(lambda name=name: "its connection is taken for dead" in stack.processes[name].output, 60)
        behind.come_back()
        assert (await patiently(socket, "finished"))["status"] == "succeeded"
        await socket.send(type="run", ref="2", task="burst", inputs={"n": 3})
        assert (await patiently(socket, "finished"))["status"] == "succeeded"
    assert rest.get(uuid)["attempt"] == 1


async def patiently(socket, kind):
    """The next frame of that type, with time enough for a busy machine."""
    async with asyncio.timeout(60):
        while (frame := json.loads(await socket.connection.recv()))["type"] != kind:
            pass
    return frame
