"""The main use from outside, through every process that takes part."""

from tests.support.waiting import wait_for


def test_a_run_started_over_rest_is_seen_to_succeed(rest):
    response = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1, 2, 3.5]}})
    assert response.status_code == 201, response.text

    def succeeded():
        run = rest.get(response.headers["Location"]).json()
        return run if run["status"] == "succeeded" else None

    run = wait_for(succeeded)
    assert run["uuid"] == response.json()["uuid"]
    assert run["outputs"] == {"sum": 6.5}


async def test_a_run_started_over_a_websocket_is_followed_until_it_has_finished(ws_connect):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="1", task="sum", inputs={"numbers": [1, 2]})
        accepted, *_, finished = await socket.receive_until("finished")
    assert accepted["type"] == "accepted"
    assert accepted["ref"] == "1"
    assert finished["uuid"] == accepted["task"]["uuid"]
    assert finished["status"] == "succeeded"
    assert finished["task"]["outputs"] == {"sum": 3}


async def test_messages_of_a_held_task_arrive_while_it_runs(ws_connect, gate):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="1", task="hold", inputs={"gate": gate.path})
        held = (await socket.receive_until("message"))[-1]
        gate.open()
        frames = await socket.receive_until("finished")
    assert (held["index"], held["message"]) == (0, "held")
    assert [frame["message"] for frame in frames if frame["type"] == "message"] == ["let go"]
