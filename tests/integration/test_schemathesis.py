"""schemathesis calls a real server with what the OpenAPI document allows, and with what it does not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.databases import Databases
from tests.support.stack import Stack

EXAMPLES = 25  # for each call and phase: some 15 seconds in all
SEED = 12

#: Checks that ask for more than the document promises.
NOT_ASKED = (
    "negative_data_rejection",  # "6" is taken for 6, and a field that nobody knows is passed over
    "positive_data_acceptance",  # JSON Schema cannot say "12 digits in all", or that a key was used before
)

ADD_USER = "from django.contrib.auth.models import User; User.objects.create_user('ann', password='secret')"


class FuzzedStack(Stack):
    extra = {"DJANGO_SETTINGS_MODULE": "tests.project.fuzzed"}


@pytest.fixture(scope="module")
def fuzzed(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedStack]:
    with FuzzedStack(databases.new("sqlite"), tmp_path_factory.mktemp("fuzzed")) as stack:
        stack.manage("shell", "--verbosity=0", "-c", ADD_USER)
        yield stack


@pytest.mark.timeout(600)  # seconds; a slow machine needs longer for the same number of calls
@pytest.mark.parametrize("credentials", [(), ("--auth", "ann:secret")], ids=["anonymous", "user"])
def test_no_call_gets_a_500_and_each_answer_is_described(
    fuzzed: FuzzedStack, credentials: tuple[str, ...], tmp_path: Path
) -> None:
    options = {"--seed": SEED, "--max-examples": EXAMPLES, "--request-timeout": 60, "--warnings": "off"}
    options |= {"--checks": "all", "--exclude-checks": ",".join(NOT_ASKED), "--generation-database": "none"}
    given = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{fuzzed.url}/tasks/openapi.json", "--no-color"]
    done = subprocess.run(  # noqa: PLW1510 - what it says is shown if it fails
        [*command, *given, *credentials], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in fuzzed.processes["web"].output


DEEP = b"[" * 100_000
LONG = b"1" + b"0" * 5_000
BODIES = {
    "an empty body": b"",
    "no text": b"\xff\xfe",
    "half a character": b'{"task": "\xe2\x9c"}',
    "a string": b'"sum"',
    "a list": b"[]",
    "nothing": b"null",
    "a task that is no string": b'{"task": {"sum": 1}}',
    "a NUL in the name": b'{"task": "sum\\u0000"}',
    "a lone surrogate in the name": b'{"task": "\\ud800"}',
    "a NUL in the name of an input": b'{"task": "everything", "inputs": {"\\u0000": 1}}',
    "a lone surrogate in the name of an input": b'{"task": "everything", "inputs": {"\\udfff": 1}}',
    "a lone surrogate in an input": b'{"task": "everything", "inputs": {"string": "\\udfff"}}',
    "a NUL in an input": b'{"task": "everything", "inputs": {"json": {"a": ["\\u0000"]}}}',
    "an endless nest": DEEP,
    "a nest in an input": b'{"task": "everything", "inputs": {"json": ' + b"[" * 200 + b"]" * 200 + b"}}",
    "a number past a double": b'{"task": "everything", "inputs": {"json": 1e400, "number": ' + LONG + b"}}",
    "a number of 5,000 digits": b'{"task": "everything", "inputs": {"integer": ' + LONG + b"}}",
    "not a number": b'{"task": "everything", "inputs": {"float": NaN}}',
    "many of nothing": b'{"task": "everything", "many": []}',
    "many that are none": b'{"task": "everything", "many": {"0": {}}}',
    "many nulls": b'{"task": "everything", "many": [null, 1, "a", []]}',
    "many and one": b'{"task": "everything", "many": [{}], "inputs": {}}',
    "many with surrogates": b'{"task": "refuse", "many": [{"why": "\\ud800"}, {"\\ud800": 1}]}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_cannot_be_served_is_refused_with_its_reason(fuzzed: FuzzedStack, body: bytes) -> None:
    with fuzzed.client() as client:  # its answers are checked against the document
        answer = client.post("/tasks/", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert json.loads(answer.content)


QUERIES = {
    "digits of another script": "after=%D9%A3",
    "a number below 0": "after=-1",
    "a number past all": f"after={'9' * 400}",
    "no number": "after=%00",
    "a status that is none": "status=%00",
    "half a character": "status=%ED%A0%80",
    "an owner that is none": "owner=%F0%9F%98%80",
    "a cursor that is none": "cursor=%00",
    "a cursor of bytes": "cursor=%FF%FE",
    "a cursor that says nonsense": "cursor=cD0lMDA%3D",
    "a task that is none": "task=%00&task=%ED%A0%80",
    "a page without a size": "page_size=%D9%A3&page_size=-1",
    "another form": "format=%00",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_that_cannot_be_served_is_refused_or_passed_over(fuzzed: FuzzedStack, query: str) -> None:
    with fuzzed.client() as client:
        run = client.post("/tasks/", json={"task": "everything"}).json()["uuid"]
        for path in (
            "/tasks/",
            "/tasks/types/",
            f"/tasks/{run}/",
            f"/tasks/{run}/events/",
            f"/tasks/{uuid4()}/events/",
        ):
            assert client.get(f"{path}?{query}", auth=("ann", "secret")).status_code in (200, 400, 403, 404)


HEADERS = {
    "Idempotency-Key": [b"", b'"', b"\xff", b'"\\"', b"k" * 256, b'"' + b"k" * 255 + b'"'],
    "Prefer": [b"", b"wait", b"wait=", b"wait=-1", b"wait=" + b"9" * 400, b"wait=1.5", b"\xff", b'wait="0"'],
    "If-None-Match": [b"", b"*", b'"', b"W/", b"\xff", b'"a", "b'],
    "Last-Event-ID": [b"", b"-1", b"\xff", b"9" * 400],
    "Accept": [b"", b"*", b"text/event-stream", b"application/problem+json", b"image/png", b"\xff", b"a/b;q=x"],
    "Authorization": [b"Basic", b"Basic \xff", b"Basic Og==", b"Run x", b"Bearer"],
    "Content-Type": [b"", b"text/plain", b"application/json; charset=nothing"],
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_says_nothing_gets_no_500(fuzzed: FuzzedStack, header: str) -> None:
    with fuzzed.client() as client:
        run = client.post("/tasks/", json={"task": "no/thing ✓"}).json()["uuid"]
        for value in HEADERS[header]:
            headers = {"Content-Type": "application/json", header: value}
            client.post("/tasks/", content=b'{"task": "no/thing \\u2713"}', headers=headers)
            for path in ("/tasks/", "/tasks/types/", f"/tasks/{run}/", f"/tasks/{run}/events/"):
                client.get(path, headers={header: value})


def test_the_document_that_is_served_is_the_one_that_the_command_writes(fuzzed: FuzzedStack) -> None:
    with fuzzed.client() as client:
        served = client.get("/tasks/openapi.json").json()
    assert served == json.loads(fuzzed.manage("taskschema"))


def test_a_stack_without_the_extra_serves_all_but_the_document(databases: Databases, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['drf_spectacular'] = None\n")
    stack = FuzzedStack(databases.new("sqlite"), tmp_path)
    stack.extra = {**stack.extra, "PYTHONPATH": os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])}
    with stack, stack.client() as client:
        assert client.get("/tasks/openapi.json").status_code == 501
        assert client.get("/tasks/asyncapi.json").status_code == 200
        assert client.post("/tasks/", json={"task": "sum", "inputs": {"numbers": [1]}}).status_code == 201
