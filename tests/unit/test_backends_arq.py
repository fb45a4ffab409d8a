"""The parts of the queue in Redis that need no Redis; the rest is in tests/integration/test_queue.py."""

import json
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
import redis.exceptions
from arq.jobs import deserialize_job_raw, serialize_job

from taskapi.backends import QueueUnavailable, get_backend
from taskapi.backends.arq.layout import FUNCTION, health_key, queue_key, serialize
from taskapi.backends.arq.queue import _uuid
from taskapi.backends.redis import OUTAGE, THREAD_PAUSE

RUN = UUID("12345678-1234-5678-1234-567812345678")


def test_each_queue_has_keys_of_its_own():
    assert queue_key("default") == "taskapi:queue:default"
    assert health_key("default") == "taskapi:queue:default:health-check"


def test_a_job_is_json_that_arq_reads_and_no_pickle():
    text = serialize_job(FUNCTION, (RUN.hex,), {}, None, 5, serializer=serialize)
    assert json.loads(text) == {"t": None, "f": "run_task", "a": [RUN.hex], "k": {}, "et": 5}
    function, args, kwargs, *_ = deserialize_job_raw(text, deserializer=json.loads)
    assert (function, args, kwargs) == ("run_task", [RUN.hex], {})


@pytest.mark.parametrize("job_id", [RUN.hex.encode(), str(RUN).encode()])
def test_the_id_of_a_job_says_which_run_it_is_for(job_id):
    assert _uuid(job_id) == RUN


@pytest.mark.parametrize("job_id", [b"", b"cron:something:123", b"\xff\xfe", b"12345678"])
def test_what_is_no_job_of_ours_is_nobodys_run(caplog, job_id):
    assert _uuid(job_id) is None
    assert repr(job_id) in caplog.text


def test_a_redis_that_is_away_is_told_from_a_mistake():
    """Nothing listens at the address of the unit tests."""
    with pytest.raises(QueueUnavailable):
        get_backend().enqueue(uuid4(), queue="default")
    for error in (redis.exceptions.TimeoutError(), redis.exceptions.BusyLoadingError(), ConnectionResetError()):
        assert isinstance(error, OUTAGE)
    assert not isinstance(ValueError(), OUTAGE)


@pytest.fixture
def hanging(settings, monkeypatch):
    """A server that takes connections and answers none; gives how many were made since it was asked last."""
    monkeypatch.setattr("taskapi.backends.redis.clients.THREAD_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as connections:
        settings.TASK_API_REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}"
        server.setblocking(False)

        def made():
            taken = []
            with suppress(BlockingIOError):
                while True:
                    taken.append(connections.enter_context(server.accept()[0]))
            return len(taken)

        yield made


def test_a_redis_that_hangs_is_not_waited_for_once_more_for_each_run(hanging, monkeypatch):
    backend = get_backend()
    for _ in range(20):
        with pytest.raises(QueueUnavailable):
            backend.enqueue(uuid4(), queue="default")
        with pytest.raises(QueueUnavailable):
            backend.set_aside(uuid4(), queue="default")
    assert hanging() == 1
    monkeypatch.setattr(
        "taskapi.backends.redis.breaker.time", SimpleNamespace(monotonic=lambda: time.monotonic() + THREAD_PAUSE)
    )
    with pytest.raises(QueueUnavailable):
        backend.enqueue(uuid4(), queue="default")
    assert hanging() == 1, "it is tried again in a while"


def test_runs_that_are_queued_together_while_redis_is_away_are_a_line_in_the_log(caplog):
    with get_backend().together():
        for _ in range(3):
            get_backend().enqueue(uuid4(), queue="default")
    assert "3 runs are recorded but could not be queued yet" in caplog.text


def test_a_redis_that_refuses_is_tried_each_time():
    """A try costs nothing, and Redis may be up again."""
    for _ in range(2):
        with pytest.raises(QueueUnavailable, match="Redis is not there"):
            get_backend().enqueue(uuid4(), queue="default")


def test_who_has_no_redis_is_told_of_the_backend_that_needs_none(caplog):
    for ask in (get_backend().has_worker, partial(get_backend().missing, uuids=[RUN])):
        with pytest.raises(QueueUnavailable) as caught:
            ask("default")
        assert "Start it, or set TASK_API_REDIS_URL." in str(caught.value)
        assert "'taskapi.backends.local.LocalBackend'" in str(caught.value)
    with get_backend().together():
        get_backend().enqueue(uuid4(), queue="default")
    assert "'taskapi.backends.local.LocalBackend'" in caplog.text, "the server's log says it, too"


def test_nothing_is_asked_about_no_runs():
    assert get_backend().missing("default", iter([])) == []


def test_its_tasks_run_in_other_processes():
    assert get_backend().other_processes
