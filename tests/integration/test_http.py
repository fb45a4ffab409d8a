"""What clients without a WebSocket are promised by real servers: waiting, streams, polls."""

import asyncio
import socket
from contextlib import AsyncExitStack

import psutil
import psycopg
import pytest
import redis

from tests.integration.contract.guarantees import check_stream, messages
from tests.support.sse import client_of, open_stream, stream_of
from tests.support.waiting import until, wait_for

pytestmark = pytest.mark.timeout(180)

MANY = 300
AT_ONCE = 30
FEW = 10  # threads, or connections, that a server may have more than before
LATE = 100.0  # seconds


def start(rest, task, **inputs):
    answer = rest.post("/tasks/", json={"task": task, "inputs": inputs})
    assert answer.status_code == 201, answer.text
    return answer.json()["uuid"]


def ended(rest, uuid):
    return wait_for(lambda: (run := rest.get(f"/tasks/{uuid}/").json())["finished"] and run)


# Many at once


def start_many(stack):
    """Runs that wait: their queue has no worker."""
    code = f"from tests.project.tasks import AsideQuick\nfor _ in range({MANY}): print(AsideQuick.start({{}}).uuid)"
    return stack.manage("shell", "--verbosity=0", "-c", code).split()[-MANY:]


def cancel_all(stack, uuids):
    code = (
        f"from taskapi.models import TaskInfo\nfor info in TaskInfo.objects.filter(uuid__in={uuids!r}): info.cancel()"
    )
    stack.manage("shell", "--verbosity=0", "-c", code)


def followed(stack):
    """How many runs somebody follows: each has a channel in Redis then."""
    with redis.Redis.from_url(f"{stack.valkey.connection_url}/0") as client:
        return sum(b".run." in channel for channel in client.pubsub_channels())


def connections(stack):
    """How many connections the servers have to PostgreSQL."""
    address = {"host": stack.database["HOST"], "user": stack.database["USER"], "dbname": stack.database["NAME"]}
    with psycopg.connect(**address) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return connection.execute(query).fetchone()[0]


@pytest.fixture
def costs(stack, rest):
    """Whether the web server has hardly more threads and connections than before."""
    rest.get("/tasks/00000000-0000-0000-0000-000000000000/")
    web = psutil.Process(stack.processes["web"].popen.pid)
    threads, before, nobody = web.num_threads(), connections(stack), followed(stack)

    def are_low():
        return web.num_threads() <= threads + FEW and connections(stack) <= before + FEW

    are_low.follow = lambda count: followed(stack) == nobody + count
    return are_low


@pytest.mark.parametrize("stack", ["postgres"], indirect=True)
async def test_hundreds_who_wait_hold_no_thread_and_no_connection(stack, costs):
    uuids = await asyncio.to_thread(start_many, stack)
    async with client_of(stack.url) as client:
        waits = []
        for uuid in uuids:
            waits.append(asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"})))
            if len(waits) % AT_ONCE == 0:  # each takes a connection as it begins, and PostgreSQL has a hundred
                await until(lambda: costs.follow(len(waits)), LATE)
        await until(costs, LATE)
        assert not any(wait.done() for wait in waits)
        await asyncio.to_thread(cancel_all, stack, uuids)
        answers = await asyncio.gather(*waits)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} == {"cancelled"}
    await until(lambda: costs.follow(0), LATE)
    await until(costs, LATE)


@pytest.mark.parametrize("stack", ["postgres"], indirect=True)
async def test_hundreds_of_streams_hold_no_thread_and_no_connection(stack, costs):
    uuids = await asyncio.to_thread(start_many, stack)
    async with client_of(stack.url) as client, AsyncExitStack() as open_streams:
        streams = [await open_streams.enter_async_context(stream_of(client, uuid)) for uuid in uuids]
        await asyncio.gather(*(stream.until("snapshot") for stream in streams))
        await until(lambda: costs.follow(MANY), LATE)
        await until(costs, LATE)
        await asyncio.to_thread(cancel_all, stack, uuids[: MANY // 2])
        for stream in streams[: MANY // 2]:
            assert (await stream.to_the_end())[-1]["status"] == "cancelled"
    await until(lambda: costs.follow(0), LATE)  # the other half went away
    await until(costs, LATE)
    await asyncio.to_thread(cancel_all, stack, uuids)


# Streams


async def test_a_stream_tells_what_a_socket_tells(stack, rest, ws_connect, gate):
    uuid = start(rest, "hold", gate=gate.path)
    wait_for(lambda: rest.get(f"/tasks/{uuid}/").json()["message_count"])
    async with open_stream(stack.url, uuid) as stream, ws_connect() as socket:
        await stream.until("snapshot")
        await socket.send(type="subscribe", uuid=uuid, after=0)
        over_socket = await socket.receive_until("snapshot")
        await asyncio.to_thread(gate.open)
        over_socket += await socket.receive_until("finished")
        told = await stream.to_the_end()
    check_stream(told)
    assert told[1:] == over_socket[1:]
    assert told[0] == {name: value for name, value in over_socket[0].items() if name != "ref"}
    assert told[0]["task"]["messages"] + messages(told) == ["held", "let go"]


async def test_events_arrive_while_the_run_goes_on(stack, rest, gate):
    uuid = start(rest, "async_hold", gate=gate.path)
    async with open_stream(stack.url, uuid, headers={"Accept-Encoding": "gzip"}) as stream:
        while not stream.frames or stream.frames[0]["task"]["messages"] + messages(stream.frames) != ["held"]:
            await stream.receive()
        assert rest.get(f"/tasks/{uuid}/").json()["status"] == "running"
        await asyncio.to_thread(gate.open)
        await stream.to_the_end()
    assert stream.ids[-1] == "2"
    assert stream.retry > 60_000


async def test_a_client_that_was_cut_off_resumes(stack, rest):
    uuid = start(rest, "say", n=500)
    async with open_stream(stack.url, uuid) as stream:
        while len(stream.frames) < 5 and await stream.receive():
            pass
    said = stream.frames[0]["task"]["messages"] + messages(stream.frames)
    async with open_stream(stack.url, uuid, headers={"Last-Event-ID": stream.ids[-1]}) as resumed:
        await resumed.to_the_end()
    said += resumed.frames[0]["task"]["messages"] + messages(resumed.frames)
    assert said == [{"number": number} for number in range(500)]


@pytest.mark.parametrize("known", ["999999999999999", "2147483648", "9223372036854775807"])
async def test_a_number_that_no_database_has_room_for_is_no_error(stack, rest, known):
    uuid = start(rest, "say", n=2)
    run = ended(rest, uuid)
    expected = [] if len(known) < 16 else run["messages"]
    async with open_stream(stack.url, uuid, headers={"Last-Event-ID": known}) as stream:
        assert (await stream.to_the_end())[0]["task"]["messages"] == expected
    answer = rest.get(f"/tasks/{uuid}/", params={"after": known})
    assert answer.status_code == (200 if len(known) < 16 else 400)


# Waiting


async def test_who_waits_is_answered_by_what_happens_to_the_run(stack, rest, gate):
    uuid = start(rest, "hold", gate=gate.path)
    async with client_of(stack.url) as client:
        tags, run = [], {}
        while run.get("message_count") != 1:
            known = {"If-None-Match": tags[-1]} if tags else {}
            answer = await client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60" if tags else "wait=0", **known})
            tags.append(answer.headers["ETag"])
            run = answer.json()
        assert len(set(tags)) == len(tags), "each answer was news"
        last = asyncio.create_task(
            client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60", "If-None-Match": tags[-1]})
        )
        final = asyncio.create_task(client.get(f"/tasks/{uuid}/", headers={"Prefer": "wait=60"}))
        await asyncio.to_thread(gate.open)
        assert (await last).headers["ETag"] not in tags
        assert (await final).json()["status"] == "succeeded"


# The wire


def raw(stack, *lines):
    """What the server sends back, as it is."""
    request = "\r\n".join([*lines, "Host: 127.0.0.1", "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(request.encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    return int(first.split()[1]), {line.split(":")[0].lower(): line.split(": ", 1)[1] for line in headers}, body


def test_a_304_has_no_body_on_the_wire(stack, rest):
    uuid = start(rest, "sum", numbers=[1])
    tag = f'"{ended(rest, uuid)["seq"]}"'
    for more in ([], ["Prefer: wait=5"]):
        status, headers, body = raw(stack, f"GET /tasks/{uuid}/ HTTP/1.1", f"If-None-Match: {tag}", *more)
        assert (status, headers["etag"], headers["cache-control"], body) == (304, tag, "no-store", b"")
        assert "content-type" not in headers
        assert headers.get("content-length", "0") == "0"
        assert "transfer-encoding" not in headers


def test_a_connection_is_kept_from_answer_to_answer(stack, rest):
    """A 304, or a HEAD, that had a body would be read as the next answer."""
    uuid = start(rest, "sum", numbers=[1])
    tag = f'"{ended(rest, uuid)["seq"]}"'
    for headers in ({"If-None-Match": tag}, {}, {"If-None-Match": tag, "Prefer": "wait=1"}, {}):
        assert rest.get(f"/tasks/{uuid}/", headers=headers).status_code == (304 if headers else 200)
        assert rest.head(f"/tasks/{uuid}/").status_code == 200
        assert rest.head(f"/tasks/{uuid}/events/").status_code == 200


def test_a_poll_with_a_body_is_answered(stack, rest):
    uuid = start(rest, "sum", numbers=[1])
    for content in (b"x", b"x" * 200_000):
        assert rest.request("GET", f"/tasks/{uuid}/", content=content).status_code == 200
    assert rest.get(f"/tasks/{uuid}/").status_code == 200
