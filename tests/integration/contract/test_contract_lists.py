"""Many runs by one call, the lists of runs and of tasks, and quoted keys, as clients of REST see them."""

import json
import uuid

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.integration.contract.conftest import BASIC
from tests.integration.contract.guarantees import REPRESENTATION
from tests.support.waiting import wait_for

STATUSES = ("pending", "running", "succeeded", "failed", "cancelled")
NUMBERS = [{"numbers": [n, 1]} for n in range(5)]


def new_key():
    return {"Idempotency-Key": str(uuid.uuid4())}


def start_many(rest, many, task="sum", **options):
    response = rest.post("/tasks/", json={"task": task, "many": many}, **options)
    assert response.status_code == 201, response.text
    return response.json()


def listed(rest, name=None, **query):
    response = rest.get("/tasks/", params=query, headers=BASIC[name])
    assert response.status_code == 200, response.text
    return response.json()["results"]


def walk(rest, name, **query):
    """All that a list has, page by page."""
    found, address, params = [], "/tasks/", query
    while address:
        body = rest.get(address, params=params, headers=BASIC[name]).json()
        found += body["results"]
        address, params = body["next"], None
    return found


# Many


def test_many_are_started_in_order_and_executed(rest):
    started = start_many(rest, NUMBERS)
    assert [set(run) for run in started] == [REPRESENTATION] * 5
    assert [run["inputs"] for run in started] == NUMBERS

    def ended():
        found = [rest.get(f"/tasks/{run['uuid']}/").json() for run in started]
        return all(run["finished"] for run in found) and found

    assert [run["outputs"]["sum"] for run in wait_for(ended)] == [1, 2, 3, 4, 5]


def test_one_that_is_wrong_stops_all_and_is_named_by_its_index(rest):
    before = len(walk(rest, "ann"))
    many = [NUMBERS[0], {"numbers": ["x"]}, NUMBERS[1], {}]
    response = rest.post("/tasks/", json={"task": "sum", "many": many}, headers=BASIC["ann"])
    assert response.status_code == 400
    assert {index: list(names) for index, names in response.json()["many"].items()} == {
        "1": ["numbers"],
        "3": ["numbers"],
    }
    assert len(walk(rest, "ann")) == before


@pytest.mark.parametrize(
    "body",
    [
        '{"task":"sum","many":[]}',
        '{"task":"sum","many":{}}',
        '{"task":"sum","many":null}',
        '{"task":"sum","many":"x"}',
        '{"task":"sum","inputs":{},"many":[{"numbers":[1]}]}',
        json.dumps({"task": "sum", "many": [{"numbers": [1]}] * 1001}),
        '{"task":"sum","many":[' + "[" * 900 + "]" * 900 + "]}",
        '{"task":"sum","many":[' + '{"numbers":' * 900 + "1" + "}" * 900 + "]}",
        '{"task":"sum","many":[null]}',
        '{"task":"sum","many":[1,"x",[]]}',
    ],
    ids=lambda body: body[:40],
)
def test_what_is_no_list_of_inputs_is_answered_400(rest, body):
    response = rest.post("/tasks/", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, list(response.json())) == (400, ["many"])


def test_many_under_a_key_are_started_once(rest):
    key = new_key() | BASIC["ann"]
    first = start_many(rest, NUMBERS, headers=key)
    again = rest.post("/tasks/", json={"task": "sum", "many": NUMBERS}, headers=key)
    assert again.status_code == 200
    assert [run["uuid"] for run in again.json()] == [run["uuid"] for run in first]
    for other in ({"many": NUMBERS[:4]}, {"many": [*NUMBERS, {"numbers": []}]}, {"inputs": NUMBERS[0]}):
        assert rest.post("/tasks/", json={"task": "sum", **other}, headers=key).status_code == 422


def test_a_key_and_the_same_key_in_quotes_are_one(rest):
    key = new_key()["Idempotency-Key"]
    body = {"task": "sum", "inputs": {"numbers": [1]}}
    answers = [rest.post("/tasks/", json=body, headers={"Idempotency-Key": given}) for given in (key, f'"{key}"')]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json()["uuid"] == answers[1].json()["uuid"]


@pytest.mark.parametrize("given", ['"', '"open', r'"\x"', '"a"b', '""', '"' + "k" * 256 + '"'])
def test_a_malformed_key_is_answered_400(rest, given):
    body = {"task": "sum", "inputs": {"numbers": [1]}}
    response = rest.post("/tasks/", json=body, headers={"Idempotency-Key": given})
    assert (response.status_code, list(response.json())) == (400, ["Idempotency-Key"])


# Lists


def test_a_list_has_the_callers_runs_newest_first_in_pages(rest):
    of_bob = [run["uuid"] for run in start_many(rest, NUMBERS, headers=BASIC["bob"])]
    start_many(rest, NUMBERS)
    start_many(rest, NUMBERS, headers=BASIC["ann"])
    body = rest.get("/tasks/", params={"page_size": 2}, headers=BASIC["bob"]).json()
    assert (set(body), body["previous"], len(body["results"])) == ({"next", "previous", "results"}, None, 2)
    found = [run["uuid"] for run in walk(rest, "bob", page_size=2)]
    assert found[:5] == of_bob[::-1]
    mine = rest.get(f"/tasks/{of_bob[0]}/", headers=BASIC["bob"]).json()
    assert next(run for run in walk(rest, "bob") if run["uuid"] == of_bob[0]).keys() == mine.keys()


def test_an_anonymous_caller_has_no_list(rest):
    start_many(rest, NUMBERS)
    assert rest.get("/tasks/").json() == {"next": None, "previous": None, "results": []}


def test_filters(rest):
    start_many(rest, [{"message": "no"}], task="refuse", headers=BASIC["ann"])
    wait_for(lambda: listed(rest, "ann", task="refuse", status="failed"))
    start_many(rest, NUMBERS, headers=BASIC["ann"])
    assert {run["task"] for run in listed(rest, "ann", task="refuse")} == {"refuse"}
    assert {run["task"] for run in listed(rest, "ann", task=["refuse", "sum"])} == {"refuse", "sum"}
    assert {run["status"] for run in listed(rest, "ann", status="failed")} == {"failed"}
    assert listed(rest, "ann", task="no such task") == listed(rest, "ann", task="\0") == []
    assert len(walk(rest, "ann", status=STATUSES)) == len(walk(rest, "ann"))


@pytest.mark.parametrize("status", ["done", "", "Failed"])
def test_an_unknown_status_is_answered_400_with_those_there_are(rest, status):
    response = rest.get("/tasks/", params={"status": status}, headers=BASIC["ann"])
    assert (response.status_code, list(response.json())) == (400, ["status"])
    assert all(status in response.json()["status"][0] for status in STATUSES)


@pytest.mark.parametrize(("name", "status"), [("staff", 200), ("ann", 403), (None, 403)])
def test_the_runs_of_all_owners_are_for_staff(rest, name, status):
    (run,) = start_many(rest, NUMBERS[:1], headers=BASIC["bob"])
    response = rest.get("/tasks/", params={"owner": "all"}, headers=BASIC[name])
    assert response.status_code == status
    if status == 200:
        assert response.json()["results"][0]["uuid"] == run["uuid"]


def test_another_owner_is_answered_400(rest):
    response = rest.get("/tasks/", params={"owner": "ann"}, headers=BASIC["staff"])
    assert (response.status_code, list(response.json())) == (400, ["owner"])


def test_what_is_large_is_left_out_and_named(rest):
    inputs = [{"outputs": 40_000}, {"message": 40_000}, {"lines": 5}]
    started = start_many(rest, inputs, task="large", headers=BASIC["ann"])
    wait_for(lambda: all(run["finished"] for run in listed(rest, "ann", task="large", page_size=3)))
    found = {run["uuid"]: run for run in listed(rest, "ann", task="large", page_size=3)}
    items = [found[run["uuid"]] for run in started]
    assert [item.get("omitted") for item in items] == [["outputs"], ["messages"], None]
    assert ("outputs" in items[0], "messages" in items[1], len(items[2]["messages"])) == (False, False, 5)
    whole = rest.get(f"/tasks/{started[0]['uuid']}/", headers=BASIC["ann"]).json()
    assert len(whole["outputs"]["text"]) == 40_000


# Types


def types(rest, name=None):
    response = rest.get("/tasks/types/", headers=BASIC[name])
    assert response.status_code == 200
    return {found["name"]: found for found in response.json()}


def test_types_are_what_the_caller_may_run_with_their_schemas(rest):
    found = types(rest)
    assert list(found) == sorted(found)
    assert found["sum"]["description"] == "Add numbers, as in the 1.x documentation."
    for described in found.values():
        assert set(described) == {"name", "description", "inputs", "outputs"}
        Draft202012Validator.check_schema(described["inputs"])
        Draft202012Validator.check_schema(described["outputs"])
    assert ("members" in found, "members" in types(rest, "ann")) == (False, True)


def test_where_a_login_is_required_lists_and_types_are_answered_401(stack):
    with httpx.Client(base_url=stack.members_url) as rest:
        assert [rest.get(path).status_code for path in ("/tasks/", "/tasks/types/")] == [401, 401]
        assert [rest.get(path, headers=BASIC["ann"]).status_code for path in ("/tasks/", "/tasks/types/")] == [200, 200]
