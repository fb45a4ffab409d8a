"""Section 3 of the contract: the REST calls, with what section 6 says of them."""

import json
import uuid
from datetime import datetime

import httpx
import pytest

from tests.integration.contract.conftest import BASIC
from tests.integration.contract.guarantees import REPRESENTATION
from tests.integration.contract.tasks import EVERYTHING
from tests.support.waiting import wait_for

SUM = {"task": "sum", "inputs": {"numbers": [1, 2]}}
JSON = {"Content-Type": "application/json"}
UUID = "00000000-0000-4000-8000-000000000000"


def start(rest, task, inputs=None, **options):
    response = rest.post("/tasks/", json={"task": task, "inputs": inputs or {}}, **options)
    assert response.status_code == 201, response.text
    return response


def run(rest, task, inputs=None, **options):
    """Run the task; the representation of its finished run."""
    location = start(rest, task, inputs, **options).headers["Location"]

    def ended():
        found = rest.get(location, **options).json()
        return found if found["finished"] else None

    return wait_for(ended)


# Starting and reading


def test_a_started_run_answers_201_with_its_representation_and_where_it_is(rest):
    response = start(rest, "sum", {"numbers": [1, 2]})
    started = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Retry-After"] == "1"
    assert set(started) == REPRESENTATION
    known = {
        "uuid": str(uuid.UUID(started["uuid"])), "task": "sum", "status": "pending", "progress": None, "target": None,
        "inputs": {"numbers": [1, 2]}, "outputs": None, "messages": [], "message_count": 0, "error": None,
        "attempt": 0, "seq": 0, "cancel_requested": False, "started": None, "finished": None,
    }  # fmt: skip
    assert {name: started[name] for name in known} == known
    assert rest.get(response.headers["Location"]).json()["uuid"] == started["uuid"]


def test_a_finished_run_says_all_there_is_to_say_and_asks_nobody_to_come_back(rest):
    location = start(rest, "track", {"items": [4, 5]}).headers["Location"]
    wait_for(lambda: rest.get(location).json()["finished"])
    response = rest.get(location)
    run = response.json()
    assert (response.status_code, response.headers.get("Retry-After")) == (200, None)
    assert (run["status"], run["progress"], run["target"], run["outputs"], run["error"], run["attempt"]) == (
        ("succeeded", 2, 2, {"sum": 9}, None, 1)
    )
    created, started, finished = (datetime.fromisoformat(run[name]) for name in ("created", "started", "finished"))
    assert created <= started <= finished


def test_a_run_that_is_not_final_asks_to_come_back(rest, gate):
    location = start(rest, "hold", {"gate": gate.path}).headers["Location"]
    wait_for(lambda: rest.get(location).json()["message_count"])
    response = rest.get(location)
    assert (response.json()["status"], response.headers["Retry-After"]) == ("running", "1")
    gate.open()


@pytest.mark.parametrize(("after", "expected"), [("0", [0, 1, 2]), ("1", [1, 2]), ("3", []), ("999999999", [])])
def test_after_leaves_out_the_first_messages(rest, after, expected):
    found = run(rest, "say_these", {"messages": [0, 1, 2]})
    found = rest.get(f"/tasks/{found['uuid']}/", params={"after": after}).json()
    assert (found["messages"], found["message_count"]) == (expected, 3)


@pytest.mark.parametrize("after", ["-1", "1.5", "x", "", "٣", "1" * 400])
def test_an_after_that_is_no_number_is_refused_by_its_name(rest, after):
    found = start(rest, "sum", {"numbers": []}).json()
    response = rest.get(f"/tasks/{found['uuid']}/", params={"after": after})
    assert (response.status_code, list(response.json())) == (400, ["after"])


def test_every_json_value_is_kept_as_a_message(rest):
    assert run(rest, "say_everything")["messages"] == EVERYTHING


def test_inputs_are_told_as_they_were_understood(rest):
    assert start(rest, "sum", {"numbers": "5"}).json()["inputs"] == {"numbers": [5]}


@pytest.mark.parametrize("kind", ["runtime_error", "exit", "nul", "surrogate"])
def test_an_exception_is_told_to_nobody(rest, kind):
    assert run(rest, "raise", {"kind": kind})["error"] == {"code": "exception", "message": "The task failed."}


def test_a_task_error_is_told(rest):
    assert run(rest, "refuse", {"message": "No, sorry."})["error"] == {"code": "task_error", "message": "No, sorry."}


# Bad requests


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"inputs": {}}, {"task"}),
        ({"task": "", "inputs": {}}, {"task"}),
        ({"task": None, "inputs": {}}, {"task"}),
        ({"task": ["sum"], "inputs": {}}, {"task"}),
        ({"task": "no such task", "inputs": {}}, {"task"}),
        ({"task": "\0", "inputs": {}}, {"task"}),
        ({"task": "\ud83d", "inputs": {}}, {"task"}),
        ({"task": "s" * 10_000, "inputs": {}}, {"task"}),
        ({"task": "sum", "inputs": {}}, {"inputs.numbers"}),
        ({"task": "sum", "inputs": {"numbers": ["one"]}}, {"inputs.numbers"}),
        ({"task": "sum", "inputs": {"numbers": None}}, {"inputs.numbers"}),
        ({"task": "sum", "inputs": {"numbers": [None]}}, {"inputs.numbers"}),
        ({"task": "sum", "inputs": {"numbers": [True]}}, {"inputs.numbers"}),
        ({"task": "sum", "inputs": {"numbers": [1], "more": 1}}, {"inputs.more"}),
        ({"task": "sum", "inputs": {"more": 1}}, {"inputs.numbers", "inputs.more"}),
        ({"task": "progress", "inputs": {"values": 1, "target": "x"}}, {"inputs.target"}),
    ],
)
def test_bad_input_is_answered_400_with_the_name_of_what_is_wrong(rest, body, places):
    response = rest.post("/tasks/", content=json.dumps(body), headers=JSON)
    assert response.status_code == 400
    told = response.json()
    told |= {f"inputs.{name}": sentences for name, sentences in told.pop("inputs", {}).items()}
    assert set(told) == places
    assert all(isinstance(sentence, str) for sentences in told.values() for sentence in sentences)
    assert all(told.values())


@pytest.mark.parametrize("inputs", [None, [], "numbers", 5, [1, 2]])
def test_inputs_that_are_no_object_are_answered_400(rest, inputs):
    response = rest.post("/tasks/", json={"task": "sum", "inputs": inputs})
    assert (response.status_code, list(response.json())) == (400, ["inputs"])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        '"sum"',
        b"\xff\xfe",
        '{"task":"sum","inputs":{"numbers":[NaN]}}',
        '{"task":"sum","inputs":{"numbers":[1e999]}}',
        '{"task":"sum","inputs":{"numbers":[' + "9" * 5000 + "]}}",
        '{"task":"sum","inputs":{"numbers":' + "[" * 100_000,
        '{"task":"sum","inputs":{"numbers":' + "[" * 900 + "]" * 900 + "}}",
        '{"task":"sum","inputs":' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    ],
    ids=lambda body: repr(body[-20:]),
)
def test_a_body_that_cannot_be_read_is_answered_400_in_json(rest, body):
    response = rest.post("/tasks/", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()


def test_a_body_of_another_type_is_answered_415(rest):
    assert rest.post("/tasks/", data={"task": "sum"}).status_code == 415


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/tasks/"), ("PUT", f"/tasks/{UUID}/"), ("POST", f"/tasks/{UUID}/")]
)
def test_a_call_that_does_not_exist_is_answered_405(rest, method, path):
    assert rest.request(method, path).status_code == 405


@pytest.mark.parametrize("path", [UUID, "garbage", UUID + "0"])
def test_an_unknown_run_is_answered_404(rest, path):
    assert rest.get(f"/tasks/{path}/").status_code == 404


@pytest.mark.parametrize("inputs", [{}, {"numbers": ["one"]}])
def test_a_refused_run_leaves_nothing_behind(rest, inputs):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    assert rest.post("/tasks/", json={"task": "sum", "inputs": inputs}, headers=key).status_code == 400
    assert rest.post("/tasks/", json=SUM, headers=key).status_code == 201


# Cancelling and retrying


def test_a_run_is_cancelled_when_it_notices_and_only_once(rest, gate):
    location = start(rest, "hold", {"gate": gate.path}).headers["Location"]
    wait_for(lambda: rest.get(location).json()["message_count"])
    response = rest.post(f"{location}cancel/")
    assert (response.status_code, response.json()["cancel_requested"]) == (202, True)
    gate.open()
    wait_for(lambda: rest.get(location).json()["status"] == "cancelled")
    assert rest.post(f"{location}cancel/").status_code == 409


def test_a_finished_run_is_tried_again_as_a_new_run_of_the_same_inputs_and_user(rest):
    first = run(rest, "sum", {"numbers": [1, 2]}, headers=BASIC["ann"])
    response = rest.post(f"/tasks/{first['uuid']}/retry/", headers=BASIC["ann"])
    again = response.json()
    assert response.status_code == 202
    assert (again["task"], again["inputs"]) == ("sum", {"numbers": [1, 2]})
    assert again["uuid"] != first["uuid"]
    assert rest.get(f"/tasks/{again['uuid']}/").status_code == 404


def test_a_run_that_has_not_ended_is_not_tried_again(rest, gate):
    location = start(rest, "hold", {"gate": gate.path}).headers["Location"]
    assert rest.post(f"{location}retry/").status_code == 409
    gate.open()


@pytest.mark.parametrize("action", ["cancel", "retry"])
@pytest.mark.parametrize("name", ["bob", None])
def test_a_users_run_is_neither_cancelled_nor_retried_by_others(rest, action, name):
    found = run(rest, **SUM, headers=BASIC["ann"])
    assert rest.post(f"/tasks/{found['uuid']}/{action}/", headers=BASIC[name]).status_code == 404


# Idempotency


def test_a_used_key_gives_the_same_run_and_200(rest):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = start(rest, **SUM, headers=key)
    again = rest.post("/tasks/", json=SUM, headers=key)
    assert again.status_code == 200
    assert again.json()["uuid"] == first.json()["uuid"]
    assert again.headers["Location"] == first.headers["Location"]


def test_a_used_key_with_other_inputs_is_answered_422(rest):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    start(rest, **SUM, headers=key)
    response = rest.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [3]}}, headers=key)
    assert response.status_code == 422
    assert response.json()["detail"]


def test_the_same_key_of_another_caller_or_task_is_another_run(rest):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    callers = [key | BASIC[name] for name in (None, "ann", "bob")]
    found = {
        start(rest, task, {"numbers": []}, headers=who).json()["uuid"]
        for who in callers
        for task in ("sum", "async_sum")
    }
    assert len(found) == 6


@pytest.mark.parametrize(("length", "status"), [(255, 201), (256, 400), (0, 400)])
def test_a_key_has_1_to_255_characters(rest, length, status):
    key = str(uuid.uuid4()).ljust(length, "k")[:length]
    assert rest.post("/tasks/", json=SUM, headers={"Idempotency-Key": key}).status_code == status


# Who may do what


@pytest.mark.parametrize(("name", "status"), [("ann", 200), ("staff", 200), ("bob", 404), (None, 404)])
def test_a_users_run_is_seen_by_that_user_and_by_staff_alone(rest, name, status):
    found = start(rest, **SUM, headers=BASIC["ann"]).json()
    assert rest.get(f"/tasks/{found['uuid']}/", headers=BASIC[name]).status_code == status


@pytest.mark.parametrize("name", ["ann", "staff", None])
def test_an_anonymous_run_is_seen_by_whoever_knows_its_uuid(rest, name):
    found = start(rest, **SUM).json()
    assert rest.get(f"/tasks/{found['uuid']}/", headers=BASIC[name]).status_code == 200


def test_a_task_knows_who_started_it(rest):
    assert run(rest, "who_am_i", headers=BASIC["ann"])["outputs"]["info"]["user"] == "ann"
    assert run(rest, "who_am_i")["outputs"]["info"]["user"] is None


def test_where_a_login_is_required_anonymous_callers_are_answered_401(stack):
    with httpx.Client(base_url=stack.members_url) as rest:
        responses = [rest.post("/tasks/", json=SUM), rest.get(f"/tasks/{UUID}/"), rest.post("/tasks/", content="{")]
        assert [response.status_code for response in responses] == [401, 401, 401]
        assert all("WWW-Authenticate" in response.headers for response in responses)
        assert run(rest, **SUM, headers=BASIC["ann"])["outputs"] == {"sum": 3}


def test_wrong_credentials_are_answered_401(rest):
    assert rest.post("/tasks/", json=SUM, auth=("ann", "wrong")).status_code == 401


def test_a_tasks_own_permission_is_asked_to_start_and_to_read(rest):
    assert rest.post("/tasks/", json={"task": "members", "inputs": {}}).status_code == 401
    found = start(rest, "members", headers=BASIC["ann"]).json()
    assert rest.get(f"/tasks/{found['uuid']}/", headers=BASIC["ann"]).status_code == 200


def test_a_throttle_is_asked_when_a_run_is_started_and_not_when_one_is_read(rest):
    found = start(rest, "once_per_day", headers=BASIC["ann"]).json()
    assert [rest.get(f"/tasks/{found['uuid']}/", headers=BASIC["ann"]).status_code for _ in range(3)] == [200] * 3
    refused = rest.post("/tasks/", json={"task": "once_per_day", "inputs": {}}, headers=BASIC["ann"])
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0


def test_a_browser_needs_its_csrf_token(stack, rest):
    cookies = stack.login("staff")
    rest.cookies.update(cookies)
    refused = rest.post("/tasks/", json=SUM)
    assert (refused.status_code, "CSRF" in refused.json()["detail"]) == (403, True)
    start(rest, **SUM, headers={"X-CSRFToken": cookies["csrftoken"]})


def test_who_has_no_credentials_does_not_learn_which_runs_there_are(rest):
    found = start(rest, **SUM, headers=BASIC["ann"]).json()
    answers = [rest.get(f"/tasks/{uuid}/") for uuid in (found["uuid"], UUID)]
    assert answers[0].content == answers[1].content == b'{"detail":"Not found.","code":"not_authenticated"}'
    assert {answer.status_code for answer in answers} == {404}
    assert rest.get(f"/tasks/{UUID}/", headers=BASIC["ann"]).json() == {"detail": "Not found.", "code": "not_found"}
