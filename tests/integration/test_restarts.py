"""What becomes of runs when the processes around them end and start."""

import signal
import threading

import psycopg
import pytest

from tests.support.socket import open_socket
from tests.support.waiting import wait_for


def test_a_run_queued_while_no_worker_is_there_waits_for_one(own_stack):
    own_stack.stop("worker")
    with own_stack.client() as rest:
        location = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).headers["Location"]
        own_stack.start_worker()
        wait_for(lambda: rest.get(location).json()["status"] == "succeeded")


async def test_a_worker_told_to_end_finishes_what_it_runs(own_stack, gate):
    async with open_socket(own_stack.ws_url) as socket:
        await socket.send(type="run", ref="1", task="hold", inputs={"gate": gate.path})
        await socket.receive_until("message")
        worker = own_stack.processes["worker"]
        ending = threading.Thread(target=own_stack.stop, args=["worker"])
        ending.start()
        worker.wait_for_output("runs to finish")
        gate.open()
        finished = (await socket.receive_until("finished"))[-1]
        ending.join()
    assert finished["status"] == "succeeded"
    assert worker.popen.returncode == 0


def test_the_web_server_comes_back_at_the_same_address(own_stack):
    url = own_stack.url
    own_stack.stop("web")
    own_stack.start_web()
    assert own_stack.url == url
    with own_stack.client() as rest:
        assert rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).status_code == 201


@pytest.mark.timeout(120)  # a lease runs out
@pytest.mark.parametrize("own_stack", ["postgres"], indirect=True)
def test_a_worker_that_freezes_inside_a_transaction_does_not_keep_its_run(own_stack, gate):
    """The database ends that transaction; the worker, when it wakes up, finds its run with another and goes on."""
    frozen = own_stack.processes["worker"]
    with own_stack.client() as rest, connected(own_stack) as database, connected(own_stack) as lock:
        location = rest.post("/tasks/", json={"task": "hold", "inputs": {"gate": gate.path}}).headers["Location"]
        wait_for(lambda: rest.get(location).json()["message_count"] == 1)
        gate_is_opened = iter([gate.open])
        wait_for(lambda: freezes_inside(frozen, database, lock, next(gate_is_opened, None)), 60)
        own_stack.start_worker(name="other")
        run = wait_for(lambda: taken_up(rest.get(location).json(), 2), 40)
        gate.open()
        run = wait_for(lambda: ended(rest.get(location).json()))
        frozen.popen.send_signal(signal.SIGCONT)
        frozen.wait_for_output("is no longer held by attempt 1")
        assert (run["status"], run["messages"]) == ("succeeded", ["held", "held", "let go"])
        assert rest.get(location).json() == run
        own_stack.stop("other")
        location = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).headers["Location"]
        assert wait_for(lambda: ended(rest.get(location).json()))["status"] == "succeeded"
    assert "ERROR" not in frozen.output


def freezes_inside(worker, database, lock, begin):
    """Freeze the worker while its UPDATE waits for a lock, and let it have the lock then; False if it came too late.

    The worker waits for a quarter of a second and tries again later, so a busy machine may need several tries.
    """
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND wait_event_type = 'Lock'"
    idle = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND state = 'idle in transaction'"
    with lock.transaction():
        lock.execute("SELECT 1 FROM taskapi_taskinfo FOR UPDATE")
        if begin is None:
            worker.popen.send_signal(signal.SIGCONT)
        else:
            begin()
        wait_for(lambda: count(database, waiting))
        worker.popen.send_signal(signal.SIGSTOP)
    try:
        return wait_for(lambda: count(database, idle), 2)
    except AssertionError:
        return False


def connected(stack):
    database = stack.database
    return psycopg.connect(host=database["HOST"], user=database["USER"], dbname=database["NAME"], autocommit=True)


def count(database, query):
    return database.execute(query).fetchone()[0]


def taken_up(run, attempt):
    return run if run["attempt"] == attempt and run["status"] == "running" else None


def ended(run):
    return run if run["finished"] is not None else None
