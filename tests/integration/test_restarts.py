"""What becomes of runs when the processes around them end and start."""

import threading

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
