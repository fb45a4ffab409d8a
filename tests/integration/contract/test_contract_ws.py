"""Section 4 of the contract: the WebSocket, and what a subscriber may count on."""

import asyncio
import json
import uuid
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.contract.conftest import BASIC, basic
from tests.integration.contract.guarantees import REPRESENTATION, check_stream, fields, messages
from tests.integration.contract.tasks import EVERYTHING
from tests.support.socket import open_socket
from tests.support.waiting import wait_for

SUM = {"task": "sum", "inputs": {"numbers": [1, 2]}}


async def run(socket, task, inputs=None, **fields):
    """Run the task; the frames, from `accepted` to `finished`."""
    await socket.send(type="run", ref="r", task=task, inputs=inputs or {}, **fields)
    return await socket.receive_until("finished")


async def ask(socket, **frame):
    """Send the frame, and return the next frame of the server."""
    await socket.send(**frame)
    return await socket.receive()


async def assert_alive(socket):
    assert await ask(socket, type="ping", ref="still there?") == {"type": "pong", "ref": "still there?"}


async def status_of_refusal(url, **options):
    with pytest.raises(InvalidStatus) as refusal:
        async with open_socket(url, **options):
            pass
    return refusal.value.response.status_code


# The handshake


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(None, None), (["taskapi.v1"], "taskapi.v1"), (["graphql-ws", "taskapi.v1"], "taskapi.v1")],
)
async def test_the_subprotocol_is_chosen_where_the_client_names_it(ws_connect, offered, chosen):
    async with ws_connect(subprotocols=offered) as socket:
        assert socket.connection.subprotocol == chosen
        await assert_alive(socket)


async def test_a_client_that_speaks_other_subprotocols_only_is_closed_with_4406(ws_connect):
    async with ws_connect(subprotocols=["graphql-ws", "taskapi.v99"]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.receive()
    assert closed.value.rcvd.code == 4406


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
async def test_a_foreign_origin_is_refused_in_the_handshake(stack, origin):
    assert await status_of_refusal(stack.ws_url, additional_headers={"Origin": origin}) == 403


async def test_the_log_says_which_origin_was_refused(stack):
    await status_of_refusal(stack.ws_url, origin="http://who-is-this.example")
    assert "http://who-is-this.example" in stack.processes["web"].output


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1", "http://127.0.0.1:8000", "https://127.0.0.1"])
async def test_an_origin_of_allowed_hosts_is_let_through_and_so_is_none(ws_connect, origin):
    async with ws_connect(origin=origin) as socket:
        await assert_alive(socket)


async def test_wrong_credentials_are_refused_in_the_handshake(stack):
    assert await status_of_refusal(stack.ws_url, additional_headers={"Authorization": "Basic eDp5"}) == 403


# Invalid frames

UUID = "00000000-0000-4000-8000-000000000000"


def frame(**fields):
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("nonsense", "invalid_json"),
        ("\0", "invalid_json"),
        (b'{"type":"ping"}', "invalid_json"),
        (b"\xff\xfe\x00", "invalid_json"),
        ('{"type":"ping","x":NaN}', "invalid_json"),
        ('{"type":"ping","x":-Infinity}', "invalid_json"),
        ('{"type":"ping"} {"type":"ping"}', "invalid_json"),
        ("[" * 200_000 + "]" * 200_000, "invalid_json"),
        ('{"type":"ping","x":' * 20_000, "invalid_json"),
        ("9" * 10_000, "invalid_json"),
        ("[]", "invalid_frame"),
        ("null", "invalid_frame"),
        ('"ping"', "invalid_frame"),
        ("{}", "invalid_frame"),
        ('{"type":null}', "invalid_frame"),
        ('{"type":["ping"]}', "invalid_frame"),
        (frame(type="ping", ref="r" * 65), "invalid_frame"),
        (frame(type="ping", ref=1), "invalid_frame"),
        (frame(type="ping", ref={"a": 1}), "invalid_frame"),
        (frame(type="pong"), "unknown_type"),
        (frame(type="__class__"), "unknown_type"),
        (frame(type="ping\0"), "unknown_type"),
        (frame(type="\ud83d"), "unknown_type"),
        (frame(type="x" * 100_000), "unknown_type"),
        (frame(type="run"), "invalid_frame"),
        (frame(type="run", task=None), "invalid_frame"),
        (frame(type="run", task=5, inputs={}), "invalid_frame"),
        (frame(type="run", task="", inputs={}), "invalid_frame"),
        (frame(type="run", task="sum", inputs={"numbers": []}, idempotency_key=5), "invalid_frame"),
        (frame(type="run", task="sum", inputs={"numbers": []}, idempotency_key="k" * 256), "invalid_frame"),
        (frame(type="run", task="sum", inputs={"numbers": []}, after=-1), "invalid_frame"),
        (frame(type="run", task="no such task", inputs={}), "unknown_task"),
        (frame(type="run", task="\0", inputs={}), "unknown_task"),
        (frame(type="run", task="\ud83d", inputs={}), "unknown_task"),
        (frame(type="run", task="sum", inputs={"numbers": ["\ud83d"]}), "invalid_inputs"),
        (frame(type="run", task="sum", inputs={"\ud83d": 1}), "invalid_inputs"),
        (frame(type="run", task="sum", inputs=[]), "invalid_inputs"),
        (frame(type="run", task="sum", inputs=None), "invalid_inputs"),
        (frame(type="run", task="sum", inputs="numbers"), "invalid_inputs"),
        ('{"type":"run","task":"sum","inputs":{"numbers":[1e999]}}', "invalid_inputs"),
        ('{"type":"run","task":"sum","inputs":{"numbers":' + "[" * 300 + "]" * 300 + "}}", "invalid_inputs"),
        (frame(type="subscribe"), "invalid_frame"),
        (frame(type="subscribe", uuid=None), "invalid_frame"),
        (frame(type="subscribe", uuid=5), "invalid_frame"),
        (frame(type="subscribe", uuid="garbage"), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID + "\0"), "invalid_frame"),
        (frame(type="subscribe", uuid=[UUID]), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID, after=-1), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID, after=1.5), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID, after=True), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID, after="1"), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID, after=10**400), "invalid_frame"),
        (frame(type="subscribe", uuid=UUID), "not_found"),
        (frame(type="subscribe", uuid=UUID, after=2**53 - 1), "not_found"),
        (frame(type="unsubscribe", uuid="garbage"), "invalid_frame"),
        (frame(type="cancel", uuid="garbage"), "invalid_frame"),
        (frame(type="cancel", uuid=UUID), "not_found"),
    ],
    ids=lambda value: repr(value[:40]),
)
async def test_a_frame_that_cannot_be_served_gets_its_code_and_the_socket_lives_on(ws_connect, sent, code):
    async with ws_connect() as socket:
        await socket.connection.send(sent)
        error = await socket.receive()
        assert (error["type"], error["code"]) == ("error", code)
        assert error["detail"]
        assert "ref" not in error
        await assert_alive(socket)


@pytest.mark.parametrize("ref", ["r", "", "r" * 64, "\0", "é😀", "\ud83d", "\u2028"])
async def test_a_ref_comes_back_as_it_was(ws_connect, ref):
    async with ws_connect() as socket:
        assert await ask(socket, type="ping", ref=ref) == {"type": "pong", "ref": ref}
        assert (await ask(socket, type="?", ref=ref))["ref"] == ref
        assert (await ask(socket, type="run", ref=ref, task="?", inputs={}))["ref"] == ref
        assert (await ask(socket, type="subscribe", ref=ref, uuid=UUID))["ref"] == ref
        assert (await ask(socket, type="unsubscribe", ref=ref, uuid=UUID))["ref"] == ref


async def test_a_frame_without_a_ref_is_answered_without_one(ws_connect):
    async with ws_connect() as socket:
        assert await ask(socket, type="ping") == {"type": "pong"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"task": "sum", "inputs": {"numbers": ["one"]}}, "invalid_inputs"),
        ({"task": "sum", "inputs": {}}, "invalid_inputs"),
        ({"task": "sum", "inputs": {"numbers": [1], "more": 2}}, "invalid_inputs"),
        ({"task": "nothing", "inputs": {}}, "unknown_task"),
        ({"task": "members", "inputs": {}}, "not_authenticated"),
    ],
)
async def test_a_refusal_says_what_rest_would_have_answered(ws_connect, rest, body, code):
    response = rest.post("/tasks/", json=body)
    answer = response.json()
    async with ws_connect() as socket:
        error = await ask(socket, type="run", ref="r", **body)
    status = {"status": 401} if response.status_code == 401 else {}  # other statuses follow from the code
    assert error == {"type": "error", "ref": "r", "code": code, "detail": answer.get("detail", answer), **status}


# Too large for a frame

MOST = 2**20  # bytes: the limit of daphne, and the default of TASK_API_LIMITS


async def receive_bounded(socket):
    """The frames up to `finished`, checked to be no larger than MOST."""
    frames = []
    while not frames or frames[-1]["type"] != "finished":
        text = await asyncio.wait_for(socket.connection.recv(), 20)
        assert len(text.encode()) <= MOST
        frames.append(json.loads(text))
    return frames


def check_numbers(frames):
    numbers = [frames[0]["task"]["seq"], *(frame["seq"] for frame in frames[1:])]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("size", [MOST - 2000, MOST, 3_000_000])
async def test_an_outcome_of_any_size_arrives(ws_connect, rest, size):
    async with ws_connect(max_size=MOST) as socket:
        await socket.send(type="run", ref="r", task="large", inputs={"outputs": size})
        *_, finished = frames = await receive_bounded(socket)
        await socket.send(type="subscribe", ref="again", uuid=finished["uuid"])
        again = await receive_bounded(socket)
        await assert_alive(socket)
    uuid = finished["uuid"]
    assert rest.get(f"/tasks/{uuid}/").json()["outputs"] == {"text": "x" * size}
    for task in (finished["task"], again[0]["task"], again[-1]["task"]):
        if size >= MOST:
            assert task["omitted"] == ["outputs"]
            assert "outputs" not in task
        else:
            assert "omitted" not in task
            assert len(task["outputs"]["text"]) == size
    check_numbers(frames)


async def test_a_message_that_no_frame_can_hold_is_told_without_its_text(ws_connect, rest):
    async with ws_connect(max_size=MOST) as socket:
        await socket.send(type="run", ref="r", task="large", inputs={"message": 1_100_000})
        frames = await receive_bounded(socket)
        await socket.send(type="subscribe", ref="again", uuid=frames[-1]["uuid"])
        again = await receive_bounded(socket)
    for followed in (frames, again):
        large, after = (frame for frame in followed if frame["type"] == "message")
        assert (large["index"], large["omitted"], "message" in large) == (0, True, False)
        assert (after["index"], after["message"]) == (1, "after it")
        check_numbers(followed)
    answer = rest.get(f"/tasks/{frames[-1]['uuid']}/?after=0").json()
    assert [len(message) for message in answer["messages"]] == [1_100_000, 8]


async def test_a_run_with_large_inputs_is_followed_over_the_socket_though_it_was_started_over_rest(ws_connect, rest):
    body = {"task": "say_these", "inputs": {"messages": ["x" * 1_200_000]}}
    uuid = rest.post("/tasks/", json=body).json()["uuid"]
    async with ws_connect(max_size=MOST) as socket:
        await socket.send(type="subscribe", ref="r", uuid=uuid)
        frames = await receive_bounded(socket)
    assert frames[0]["task"]["omitted"] == ["inputs"]
    assert not {"inputs", "omitted"} & set(frames[-1]["task"])  # `finished` has no inputs, whatever their size
    assert rest.get(f"/tasks/{uuid}/").json()["inputs"] == body["inputs"]


async def test_a_log_that_no_frame_can_hold_arrives_line_by_line(ws_connect):
    async with ws_connect(max_size=MOST) as socket:
        await socket.send(type="run", ref="r", task="large", inputs={"lines": 14_000})
        frames = await receive_bounded(socket)
        await socket.send(type="subscribe", ref="again", uuid=frames[-1]["uuid"], after=1000)
        again = await receive_bounded(socket)
    said = [message for frame in frames if frame["type"] == "message" for message in [frame["message"]]]
    assert len(said) == 14_000
    shown = again[0]["task"]["messages"]
    assert 0 < len(shown) < 13_000
    assert shown + messages(again) == said[1000:]
    assert again[0]["task"]["message_count"] == 14_000
    check_numbers(again)


# Running


async def test_sum_is_accepted_then_runs_then_has_finished(ws_connect):
    async with ws_connect() as socket:
        accepted, running, finished = frames = await run(socket, **SUM)
    check_stream(frames)
    assert (accepted["type"], accepted["ref"]) == ("accepted", "r")
    before = accepted["task"]
    assert (before["task"], before["status"], before["inputs"], before["messages"], before["attempt"]) == (
        ("sum", "pending", {"numbers": [1, 2]}, [], 0)
    )
    assert (running["type"], running["status"], running["attempt"]) == ("status", "running", 1)
    assert finished["task"]["outputs"] == {"sum": 3}


async def test_every_json_value_arrives_as_a_message(ws_connect):
    async with ws_connect() as socket:
        frames = await run(socket, "say_everything")
        await socket.send(type="subscribe", ref="again", uuid=frames[0]["task"]["uuid"], after=0)
        again = await socket.receive_until("finished")
    check_stream(frames)
    assert messages(frames) == again[0]["task"]["messages"] == EVERYTHING


async def test_ten_thousand_messages_arrive_once_and_in_order(ws_connect):
    async with ws_connect() as socket:
        frames = await run(socket, "say", {"n": 10_000})
    check_stream(frames)
    assert messages(frames) == [{"number": number} for number in range(10_000)]


async def test_a_thousand_runs_share_one_socket(ws_connect):
    async with ws_connect() as socket:
        streams = {}
        for number in range(1000):
            await socket.send(type="run", ref=str(number), task="sum", inputs={"numbers": [number, 1]})
        refs = {}
        ended = 0
        while ended < 1000:
            frame = await socket.receive()
            if frame["type"] == "accepted":
                refs[frame["task"]["uuid"]] = int(frame["ref"])
                streams[int(frame["ref"])] = [frame]
            else:
                streams[refs[frame["uuid"]]].append(frame)
                ended += frame["type"] == "finished"
        await assert_alive(socket)
    assert sorted(streams) == list(range(1000))
    for number, frames in streams.items():
        check_stream(frames)
        assert frames[-1]["task"]["outputs"] == {"sum": number + 1}


async def test_what_is_asked_for_at_once_is_answered_each_by_itself(ws_connect):
    key = str(uuid.uuid4())
    kinds = {
        "accepted": {"task": "sum", "inputs": {"numbers": [1, 2]}},
        "invalid_inputs": {"task": "sum", "inputs": {"numbers": ["many"]}},
        "unknown_task": {"task": "nobody", "inputs": {}},
        "the first of its key": {"task": "sum", "inputs": {"numbers": [1]}, "idempotency_key": key},
        "the same again": {"task": "sum", "inputs": {"numbers": [1]}, "idempotency_key": key},
        "conflict": {"task": "sum", "inputs": {"numbers": [2]}, "idempotency_key": key},
    }
    asked = [(f"{kind} {n}", fields) for n in range(20) for kind, fields in kinds.items()]
    answers, ended = {}, set()
    async with ws_connect() as socket:
        for ref, fields in asked:
            await socket.send(type="run", ref=ref, **fields)
        while len(answers) < len(asked) or ended < {
            frame["task"]["uuid"] for frame in answers.values() if frame["type"] == "accepted"
        }:
            frame = await socket.receive()
            if "ref" in frame:
                answers[frame["ref"]] = frame
            elif frame["type"] == "finished":
                ended.add(frame["uuid"])
    assert list(answers) == [ref for ref, _ in asked]
    got = {ref: frame.get("code", frame["type"]) for ref, frame in answers.items()}
    one_of_key = {frame["task"]["uuid"] for ref, frame in answers.items() if ref.startswith("the ") and "task" in frame}
    assert len(one_of_key) == 1
    assert got == {ref: "accepted" if ref.startswith("the ") else ref.rpartition(" ")[0] for ref, _ in asked}


async def test_what_is_asked_for_before_a_page_leaves_is_started(ws_connect, gate):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="r", task="hold", inputs={"gate": gate.path})
    await asyncio.wait_for(asyncio.to_thread(gate.open), 20)  # the task waits at the gate


@pytest.mark.parametrize("task", ["count", "async_count"])
async def test_progress_only_grows_and_its_last_value_arrives(ws_connect, task):
    async with ws_connect() as socket:
        frames = await run(socket, task, {"n": 20_000})
    check_stream(frames)
    assert [frame["target"] for frame in frames if frame["type"] == "target"] == [20_000]
    assert frames[-2]["type"] == "progress"
    assert (frames[-2]["progress"], frames[-2]["target"]) == (20_000, 20_000)


@pytest.mark.parametrize("task", ["track", "async_track"])
async def test_track_counts_the_items(ws_connect, task):
    async with ws_connect() as socket:
        frames = await run(socket, task, {"items": [1, 2, 3]})
    check_stream(frames)
    assert (frames[-1]["task"]["progress"], frames[-1]["task"]["target"]) == (3, 3)
    assert frames[-1]["task"]["outputs"] == {"sum": 6}


@pytest.mark.parametrize("prefix", ["", "async_"])
@pytest.mark.parametrize(
    "kind",
    [
        "runtime_error", "exit", "keyboard_interrupt", "cancelled", "generator_exit", "stop_iteration", "recursion",
        "nul", "surrogate", "unspeakable", "group", "broken_transaction",
    ],
)  # fmt: skip
async def test_an_exception_of_any_kind_fails_the_run_and_is_not_told(ws_connect, prefix, kind):
    async with ws_connect() as socket:
        frames = await run(socket, prefix + "raise", {"kind": kind})
    check_stream(frames)
    assert frames[-1]["status"] == "failed"
    assert frames[-1]["task"]["error"] == {"code": "exception", "message": "The task failed."}


async def test_a_task_that_cannot_be_made_fails(ws_connect):
    async with ws_connect() as socket:
        frames = await run(socket, "fussy")
    assert frames[-1]["task"]["error"] == {"code": "exception", "message": "The task failed."}


@pytest.mark.parametrize("task", ["raise", "async_raise"])
async def test_a_task_error_is_told(ws_connect, task):
    async with ws_connect() as socket:
        frames = await run(socket, task, {"kind": "task_error"})
    check_stream(frames)
    assert frames[-1]["task"]["error"] == {"code": "task_error", "message": "Sorry: \0 é 😀"}


@pytest.mark.parametrize("task", ["return", "async_return"])
@pytest.mark.parametrize(
    ("value", "named"),
    [(1, "number"), ({}, "number"), ({"number": "x"}, "number"), ({"number": 1, "more": 2}, "more")],
)
async def test_outputs_that_were_not_declared_fail_the_run_and_are_named(ws_connect, task, value, named):
    async with ws_connect() as socket:
        frames = await run(socket, task, {"value": value})
    check_stream(frames)
    assert frames[-1]["task"]["outputs"] is None
    assert frames[-1]["task"]["error"]["code"] == "invalid_outputs"
    assert named in frames[-1]["task"]["error"]["message"]


@pytest.mark.parametrize("kind", ["nan", "infinity", "deep", "object", "bytes", "surrogate", "key"])
async def test_outputs_that_are_no_json_fail_the_run(ws_connect, kind):
    async with ws_connect() as socket:
        frames = await run(socket, "return_odd", {"kind": kind})
    check_stream(frames)
    assert frames[-1]["task"]["error"]["code"] == "invalid_outputs"


@pytest.mark.parametrize("levels", [60, 500, 960, 975, 980, 985, 990, 2000])
async def test_a_deep_message_arrives_or_fails_the_run(ws_connect, levels):
    async with ws_connect() as socket:
        frames = await run(socket, "nest", {"levels": levels})
    check_stream(frames)
    assert (frames[-1]["status"], len(messages(frames))) in [("succeeded", 1), ("failed", 0)]


@pytest.mark.parametrize("task", ["use_database", "async_use_database"])
async def test_a_task_may_use_the_database(ws_connect, task):
    async with ws_connect() as socket:
        frames = await run(socket, task, {"name": str(uuid.uuid4())})
    check_stream(frames)
    assert frames[-1]["task"]["outputs"] == {"found": 1}


async def test_a_task_knows_its_run(ws_connect):
    async with ws_connect(additional_headers=BASIC["ann"]) as socket:
        accepted, *_, finished = await run(socket, "who_am_i")
    expected = {"uuid": accepted["task"]["uuid"], "user": "ann", "attempt": 1}
    assert finished["task"]["outputs"] == {"info": expected}


# Subscribing


async def test_two_subscribers_hear_the_same_and_each_one_finished(ws_connect, gate):
    async with ws_connect() as first, ws_connect() as second:
        await first.send(type="run", ref="r", task="hold", inputs={"gate": gate.path})
        heard = await first.receive_until("message")
        await second.send(type="subscribe", ref="s", uuid=heard[0]["task"]["uuid"], after=0)
        snapshot = await second.receive()
        gate.open()
        heard += await first.receive_until("finished")
        late = [snapshot, *await second.receive_until("finished")]
        await assert_alive(first)
        await assert_alive(second)
    check_stream(heard)
    check_stream(late)
    assert (snapshot["type"], snapshot["ref"]) == ("snapshot", "s")
    assert (snapshot["task"]["status"], snapshot["task"]["messages"]) == ("running", ["held"])
    assert late[1:] == heard[1 - len(late) :]


@pytest.mark.parametrize(("after", "expected"), [(0, [0, 1, 2]), (2, [2]), (3, []), (99, [])])
async def test_a_subscription_after_the_end_gets_the_snapshot_then_finished(ws_connect, after, expected):
    async with ws_connect() as socket:
        accepted, *_, finished = await run(socket, "say_these", {"messages": [0, 1, 2]})
        await socket.send(type="subscribe", ref="s", uuid=accepted["task"]["uuid"], after=after)
        snapshot, *events = await socket.receive_until("finished")
        await assert_alive(socket)
    assert fields(snapshot["task"]) == REPRESENTATION
    assert (snapshot["type"], snapshot["task"]["status"], snapshot["task"]["messages"]) == (
        ("snapshot", "succeeded", expected)
    )
    assert snapshot["task"]["message_count"] == 3
    assert events == [finished]


async def test_a_second_subscription_gets_a_snapshot_again_and_no_event_twice(ws_connect, gate):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="r", task="hold", inputs={"gate": gate.path})
        frames = await socket.receive_until("message")
        snapshot = await ask(socket, type="subscribe", ref="s", uuid=frames[0]["task"]["uuid"], after=1)
        gate.open()
        events = await socket.receive_until("finished")
        await assert_alive(socket)
    check_stream([snapshot, *events])
    assert snapshot["task"]["messages"] == []
    assert messages(events) == ["let go"]


async def test_a_snapshot_is_not_behind_the_events_that_were_seen(ws_connect, gate):
    async with ws_connect() as socket:
        await socket.send(type="run", ref="r", task="half_way", inputs={"gate": gate.path})
        frames = await socket.receive_until("progress")
        snapshot = await ask(socket, type="subscribe", ref="s", uuid=frames[0]["task"]["uuid"])
        gate.open()
        events = await socket.receive_until("finished")
    check_stream([snapshot, *events])
    assert (snapshot["task"]["progress"], snapshot["task"]["target"]) == (1, 2)


async def test_a_run_that_was_quiet_is_followed_to_its_end(ws_connect, rest, gate):
    async with ws_connect() as early, ws_connect() as late:
        await early.send(type="run", ref="r", task="half_way", inputs={"gate": gate.path})
        heard = await early.receive_until("progress")
        path = f"/tasks/{heard[0]['task']['uuid']}/"
        await asyncio.to_thread(wait_for, lambda: rest.get(path).json()["progress"])  # it is in the row now
        snapshot = await ask(late, type="subscribe", ref="s", uuid=heard[0]["task"]["uuid"])
        gate.open()
        heard += await early.receive_until("finished")
        heard_late = [snapshot, *await late.receive_until("finished")]
    check_stream(heard)
    check_stream(heard_late)
    assert messages(heard) == messages(heard_late) == ["on"]


async def test_what_was_unsubscribed_is_heard_no_more(ws_connect, gate):
    async with ws_connect() as leaver, ws_connect() as stayer:
        await leaver.send(type="run", ref="r", task="hold", inputs={"gate": gate.path})
        run_uuid = (await leaver.receive_until("message"))[0]["task"]["uuid"]
        await ask(stayer, type="subscribe", ref="s", uuid=run_uuid)
        gone = await ask(leaver, type="unsubscribe", ref="u", uuid=run_uuid)
        assert gone == {"type": "unsubscribed", "ref": "u", "uuid": run_uuid}
        gate.open()
        await stayer.receive_until("finished")
        await assert_alive(leaver)


async def test_unsubscribing_from_nothing_is_answered_all_the_same(ws_connect):
    async with ws_connect() as socket:
        gone = await ask(socket, type="unsubscribe", ref="u", uuid=UUID)
    assert gone == {"type": "unsubscribed", "ref": "u", "uuid": UUID}


# Cancelling


@pytest.mark.parametrize("task", ["patient", "async_hold"])
async def test_a_running_task_is_cancelled_when_it_notices(ws_connect, gate, task):
    inputs = {"gate": gate.path} if task == "async_hold" else {}
    async with ws_connect() as socket:
        await socket.send(type="run", ref="r", task=task, inputs=inputs)
        frames = await socket.receive_until("message")
        run_uuid = frames[0]["task"]["uuid"]
        await socket.send(type="cancel", ref="c", uuid=run_uuid)
        frames += await socket.receive_until("cancelling")
        cancelling = frames.pop()
        if inputs:
            gate.open()  # a thread waits for it
        if frames[-1]["type"] != "finished":  # an async task may end before the request is answered
            frames += await socket.receive_until("finished")
        again = await ask(socket, type="cancel", ref="c", uuid=run_uuid)
    check_stream(frames)
    assert cancelling == {"type": "cancelling", "ref": "c", "uuid": run_uuid}
    assert (frames[-1]["status"], frames[-1]["task"]["cancel_requested"]) == ("cancelled", True)
    assert (again["type"], again["code"]) == ("error", "conflict")


@pytest.mark.parametrize("name", ["bob", None])
async def test_a_users_run_is_not_cancelled_by_others(stack, ws_connect, gate, name):
    run_uuid = await held_by_ann(stack, gate)
    async with ws_connect(additional_headers=BASIC[name]) as other, ws_connect(additional_headers=BASIC["ann"]) as ann:
        assert (await ask(other, type="cancel", ref="c", uuid=run_uuid))["code"] == "not_found"
        await ask(ann, type="subscribe", ref="s", uuid=run_uuid)
        gate.open()
        assert (await ann.receive_until("finished"))[-1]["status"] == "succeeded"


# Idempotency


async def test_a_used_key_gives_the_same_run_with_the_messages_past_after(ws_connect):
    key = str(uuid.uuid4())
    async with ws_connect() as socket:
        first = await run(socket, "say_these", {"messages": [0, 1, 2]}, idempotency_key=key)
        again = await run(socket, "say_these", {"messages": [0, 1, 2]}, idempotency_key=key, after=2)
    assert again[0]["type"] == "accepted"
    assert again[0]["task"]["uuid"] == first[0]["task"]["uuid"]
    assert again[0]["task"]["messages"] == [2]
    assert again[1:] == first[-1:]


async def test_a_used_key_with_other_inputs_is_a_conflict(ws_connect):
    key = str(uuid.uuid4())
    async with ws_connect() as socket:
        await run(socket, "sum", {"numbers": [1]}, idempotency_key=key)
        error = await ask(socket, type="run", ref="r", task="sum", inputs={"numbers": [2]}, idempotency_key=key)
        await assert_alive(socket)
    assert (error["type"], error["ref"], error["code"]) == ("error", "r", "conflict")


@pytest.mark.parametrize("key", ["\0", "é😀", "k" * 255, "\ud83d"])
async def test_any_text_may_be_a_key(ws_connect, key):
    key = key if len(key) == 255 else key + str(uuid.uuid4())
    async with ws_connect(additional_headers=BASIC["ann"]) as socket:
        frame = await ask(socket, type="run", ref="r", **SUM, idempotency_key=key)
    assert frame["type"] in ("accepted", "error")
    assert frame.get("code", "invalid_frame") == "invalid_frame"


async def test_both_roads_know_the_same_keys(ws_connect, rest):
    key = str(uuid.uuid4())
    posted = rest.post("/tasks/", json=SUM, headers={"Idempotency-Key": key}).json()
    async with ws_connect() as socket:
        frames = await run(socket, **SUM, idempotency_key=key)
    assert frames[0]["task"]["uuid"] == posted["uuid"]


async def test_the_same_key_of_another_caller_or_task_is_another_run(ws_connect):
    key = str(uuid.uuid4())
    found = set()
    for headers in ({}, BASIC["ann"], BASIC["bob"]):
        async with ws_connect(additional_headers=headers) as socket:
            for task in ("sum", "async_sum"):
                frames = await run(socket, task, {"numbers": [1]}, idempotency_key=key)
                found.add(frames[0]["task"]["uuid"])
    assert len(found) == 6


# Who may do what


async def held_by_ann(stack, gate):
    """The uuid of a run of ann's that waits for the gate."""
    with stack.client() as client:
        body = {"task": "hold", "inputs": {"gate": gate.path}}
        return client.post("/tasks/", json=body, headers=BASIC["ann"]).json()["uuid"]


@pytest.mark.parametrize(("name", "sees"), [("ann", True), ("staff", True), ("bob", False), (None, False)])
async def test_a_users_run_is_followed_by_that_user_and_by_staff_alone(stack, ws_connect, gate, name, sees):
    run_uuid = await held_by_ann(stack, gate)
    async with ws_connect(additional_headers=BASIC[name]) as socket:
        frame = await ask(socket, type="subscribe", ref="s", uuid=run_uuid)
        gate.open()
        if sees:
            assert frame["type"] == "snapshot"
            await socket.receive_until("finished")
        else:
            assert (frame["type"], frame["code"]) == ("error", "not_found")
        await assert_alive(socket)


async def test_an_anonymous_run_is_followed_by_whoever_knows_its_uuid(ws_connect):
    async with ws_connect() as anybody:
        run_uuid = (await run(anybody, **SUM))[0]["task"]["uuid"]
    async with ws_connect(additional_headers=BASIC["bob"]) as bob:
        assert (await ask(bob, type="subscribe", ref="s", uuid=run_uuid))["type"] == "snapshot"


async def test_a_browser_is_known_by_its_session(stack, ws_connect):
    cookies = "; ".join(f"{name}={value}" for name, value in stack.login("staff").items())
    async with ws_connect(additional_headers={"Cookie": cookies}, origin=stack.url) as socket:
        frames = await run(socket, "who_am_i")
    assert frames[-1]["task"]["outputs"]["info"]["user"] == "staff"


async def test_where_a_login_is_required_the_socket_opens_and_only_ping_is_served(stack):
    async with open_socket(stack.members_ws_url) as socket:
        for request in (
            {"type": "run", **SUM},
            {"type": "run", "task": "no such task", "inputs": {}},
            {"type": "subscribe", "uuid": UUID},
            {"type": "unsubscribe", "uuid": UUID},
            {"type": "cancel", "uuid": UUID},
        ):
            error = await ask(socket, ref="r", **request)
            assert (error["type"], error["ref"], error["code"]) == ("error", "r", "not_authenticated")
        await assert_alive(socket)


async def test_where_a_login_is_required_a_user_is_served(stack):
    async with open_socket(stack.members_ws_url, additional_headers=BASIC["bob"]) as socket:
        check_stream(await run(socket, **SUM))


async def test_a_tasks_own_permission_is_asked(ws_connect):
    async with ws_connect() as anybody, ws_connect(additional_headers=BASIC["ann"]) as ann:
        assert (await ask(anybody, type="run", ref="r", task="members", inputs={}))["code"] == "not_authenticated"
        check_stream(await run(ann, "members"))


async def test_a_throttle_is_asked_once_a_run_and_not_when_one_is_read(ws_connect):
    async with ws_connect(additional_headers=BASIC["bob"]) as socket:
        frames = await run(socket, "once_per_day")
        for _ in range(3):
            await socket.send(type="subscribe", ref="s", uuid=frames[0]["task"]["uuid"])
            await socket.receive_until("finished")
        error = await ask(socket, type="run", ref="r", task="once_per_day", inputs={})
        await assert_alive(socket)
    assert (error["type"], error["code"]) == ("error", "throttled")


# The caller of an open socket


async def closing_code(socket):
    """The code with which the server closes the socket; frames before it are ignored."""
    async with asyncio.timeout(20):
        with suppress(ConnectionClosed):
            async for _ in socket.connection:
                pass
    return socket.connection.close_code


def as_header(cookies):
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


async def test_who_logs_out_in_another_tab_is_closed_as_he_follows_a_run_and_starts_no_more(stack, ws_connect, gate):
    cookies = stack.login("staff")
    async with ws_connect(additional_headers=as_header(cookies), origin=stack.url) as socket:
        await socket.send(type="run", ref="r", task="hold", inputs={"gate": gate.path})
        await socket.receive_until("message")
        with stack.client() as tab:
            tab.cookies.update(cookies)
            out = tab.post("/admin/logout/", data={"csrfmiddlewaretoken": cookies["csrftoken"]})
            assert out.status_code < 400
        assert await closing_code(socket) == 4401
    gate.open()  # its run goes on


@pytest.mark.parametrize("headers", ["session", "password"])
async def test_a_user_who_is_deactivated_by_another_process_is_closed(stack, ws_connect, headers):
    name = f"leaver{headers}"
    script = f"User.objects.create_user('{name}', password='secret', is_staff=True)"
    stack.manage("shell", "--verbosity=0", "-c", f"from django.contrib.auth.models import User; {script}")
    known = as_header(stack.login(name)) if headers == "session" else basic(name)
    async with ws_connect(additional_headers=known) as busy, ws_connect(additional_headers=known) as quiet:
        assert (await run(busy, "who_am_i"))[-1]["task"]["outputs"]["info"]["user"] == name
        script = f"User.objects.filter(username='{name}').update(is_active=False)"
        stack.manage("shell", "--verbosity=0", "-c", f"from django.contrib.auth.models import User; {script}")
        assert await closing_code(quiet) == 4401
        assert await closing_code(busy) == 4401


async def test_who_subscribes_without_credentials_is_told_that_he_may_have_to_log_in(ws_connect):
    async with ws_connect() as nobody, ws_connect(additional_headers=BASIC["bob"]) as bob:
        asked = {"type": "subscribe", "ref": "s", "uuid": UUID}
        answer = {"type": "error", "ref": "s", "code": "not_found", "detail": "Not found."}
        assert await ask(nobody, **asked) == {**answer, "reason": "not_authenticated"}
        assert await ask(bob, **asked) == answer
