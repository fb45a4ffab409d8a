"""A client that does not read costs bounded memory, and gets everything once it reads."""

import json

import psutil
import pytest

from tests.integration.contract.guarantees import messages
from tests.support.socket import open_socket
from tests.support.sse import open_stream

MESSAGES, SIZE = 200, 500_000  # 100 MB in all
ALLOWED = 40_000_000  # bytes by which daphne may grow: some pages of messages, and what the allocator keeps

RECORD = f"""
from taskapi.models import TaskInfo, TaskMessage
info = TaskInfo.objects.create(task="sum", status="succeeded", attempt=1, seq=1_000_010_000, message_count={MESSAGES})
for n in range({MESSAGES}):
    TaskMessage.objects.create(run=info, index=n, attempt=1, seq=1_000_000_005 + n, body="x" * {SIZE})
print(info.uuid)
"""


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
async def test_a_client_that_does_not_read_is_waited_for(stack):
    uuid = stack.manage("shell", "--verbosity=0", "-c", RECORD).split()[-1]
    web = psutil.Process(stack.processes["web"].popen.pid)
    async with open_socket(stack.ws_url) as other, open_socket(stack.ws_url, max_queue=1) as slow:
        await slow.send(type="subscribe", ref="s", uuid=uuid)
        before = web.memory_info().rss
        most = before
        for number in range(40):  # meanwhile others are served, for long enough to send everything
            await other.send(type="run", ref=str(number), task="sum", inputs={"numbers": [number]})
            await other.receive_until("finished")
            most = max(most, web.memory_info().rss)
        assert most - before < ALLOWED
        frames = []
        while not frames or frames[-1]["type"] != "finished":
            frames.append(json.loads(await slow.connection.recv()))
            most = max(most, web.memory_info().rss)
    assert [frame["index"] for frame in frames if frame["type"] == "message"] == list(range(MESSAGES))
    assert most - before < ALLOWED


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
async def test_a_client_that_does_not_read_its_stream_is_waited_for(stack):
    uuid = stack.manage("shell", "--verbosity=0", "-c", RECORD).split()[-1]
    web = psutil.Process(stack.processes["web"].popen.pid)
    before = most = web.memory_info().rss
    async with open_socket(stack.ws_url) as other, open_stream(stack.url, uuid) as slow:
        for number in range(40):  # meanwhile others are served, for long enough to send everything
            await other.send(type="run", ref=str(number), task="sum", inputs={"numbers": [number]})
            await other.receive_until("finished")
            most = max(most, web.memory_info().rss)
        assert most - before < ALLOWED
        while await slow.receive():
            most = max(most, web.memory_info().rss)
    said = slow.frames[0]["task"]["messages"] + messages(slow.frames)
    assert [len(message) for message in said] == [SIZE] * MESSAGES
    assert slow.frames[-1]["type"] == "finished"
    assert most - before < ALLOWED
