"""Section 1 of the contract, `Task.validate`: the same over REST and over the WebSocket."""

import uuid

import httpx
import pytest

from tests.integration.contract.conftest import BASIC
from tests.support.socket import Socket
from tests.support.waiting import wait_for

ITEM = {"item": "pen"}
REFUSED = [
    ({"amount": 11}, {"amount": ["More than the limit."], "limit": ["Less than the amount."]}),
    ({"amount": 6}, {"non_field_errors": ["Log in for more than 5."]}),
    ({"amount": "x"}, {"amount": ["A valid integer is required."]}),
]


def post(rest: httpx.Client, inputs: dict, task: str = "order", **headers: str) -> httpx.Response:
    return rest.post("/tasks/", json={"task": task, "inputs": inputs}, headers=headers)


async def order(socket: Socket, inputs: dict, **fields: str) -> dict:
    """The answer to a `run` frame."""
    await socket.send(type="run", ref="r", task="order", inputs=inputs, **fields)
    return await socket.receive()


@pytest.mark.parametrize("task", ["order", "async_order"])
@pytest.mark.parametrize(("name", "who"), [(None, "0"), ("ann", "ann")])
def test_run_gets_what_validate_has_made_of_the_inputs(rest, task, name, who):
    started = post(rest, ITEM, task, **BASIC[name]).json()
    number = started["inputs"]["number"]
    assert started["inputs"] == {"item": f"pen for {who}", "number": number}, "defaults are not recorded"
    url = f"/tasks/{started['uuid']}/"
    ended = wait_for(lambda: (run := rest.get(url, headers=BASIC[name]).json())["finished"] and run)
    assert ended["outputs"] == {"order": f"1 pen for {who}: {number}"}


async def test_validate_may_query_the_database_over_the_socket(ws_connect):
    async with ws_connect(additional_headers=BASIC["ann"]) as socket:
        accepted = await order(socket, ITEM)
        number = accepted["task"]["inputs"]["number"]
        *_, finished = await socket.receive_until("finished")
    assert finished["task"]["outputs"] == {"order": f"1 pen for ann: {number}"}


@pytest.mark.parametrize(("inputs", "detail"), REFUSED)
async def test_what_validate_refuses_are_invalid_inputs_at_both_doors(rest, ws_connect, inputs, detail):
    response = post(rest, ITEM | inputs)
    assert (response.status_code, response.json()) == (400, {"inputs": detail})
    async with ws_connect() as socket:
        error = await order(socket, ITEM | inputs)
    assert (error["type"], error["code"], error["detail"]) == ("error", "invalid_inputs", {"inputs": detail})


async def test_an_exception_of_another_kind_is_what_it_is_elsewhere(rest, ws_connect):
    assert post(rest, {"item": "forbid"}, **BASIC["ann"]).status_code == 403
    async with ws_connect() as socket:
        error = await order(socket, {"item": "forbid"})
        assert (error["type"], error["code"]) == ("error", "permission_denied")


async def test_a_validate_that_returns_nothing_is_an_error_in_the_servers_log(stack, rest, ws_connect):
    rest.event_hooks = {}  # the schema describes no 500: it is a mistake of the project
    assert post(rest, {"item": "forget"}).status_code == 500
    async with ws_connect() as socket:
        error = await order(socket, {"item": "forget"})
        assert (error["type"], error["code"]) == ("error", "unavailable")
    assert stack.processes["web"].output.count("Order.validate() has to return the inputs to use") >= 2


async def test_a_key_is_the_callers_inputs_and_not_what_validate_makes_of_them(rest, ws_connect):
    key = str(uuid.uuid4())
    first = post(rest, ITEM, **{"Idempotency-Key": key})
    again = post(rest, ITEM, **{"Idempotency-Key": key})
    other = post(rest, ITEM | {"amount": 2}, **{"Idempotency-Key": key})
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert again.json()["uuid"] == first.json()["uuid"]
    async with ws_connect() as socket:
        accepted = await order(socket, ITEM, idempotency_key=key)
    assert accepted["task"]["uuid"] == first.json()["uuid"]


def test_a_retry_is_validated_again(rest):
    url = f"/tasks/{post(rest, ITEM).json()['uuid']}/"
    wait_for(lambda: rest.get(url).json()["finished"])
    again = rest.post(f"{url}retry/")
    assert again.status_code == 202
    assert again.json()["inputs"] == rest.get(url).json()["inputs"]
