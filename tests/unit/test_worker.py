"""The two commands that start a worker, and a worker on a queue that needs no server."""

import asyncio
import json
import signal
from queue import Empty, SimpleQueue
from uuid import uuid4

import pytest
from arq.worker import create_worker
from django.core.management import CommandError, call_command

from taskapi.backends import Backend, QueueUnavailable, WorkerQueue, get_backend
from taskapi.backends.arq.command import redis_settings, run_task
from taskapi.params import IntParameter
from taskapi.tasks import Task
from taskapi.worker import WorkerSettings, work
from taskapi.workers.worker import Worker
from tests.support.backends import ListBackend
from tests.support.waiting import until

# arq


async def test_arq_makes_a_worker_of_the_settings():
    worker = create_worker(WorkerSettings, handle_signals=False)
    assert list(worker.functions) == ["run_task"]
    assert worker.queue_name == "taskapi:queue:default"
    assert worker.health_check_key == "taskapi:queue:default:health-check"
    assert worker.on_startup is work
    assert json.loads(worker.job_serializer({"a": 1})) == {"a": 1}


async def test_arqs_own_worker_executes_nothing():
    with pytest.raises(RuntimeError, match="its own worker"):
        await run_task({}, "uuid")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://ann:secret@there:7/3", {"host": "there", "port": 7, "database": 3, "username": "ann"}),
        ("redis://ann:s%40c%2Fret@there/3", {"username": "ann", "password": "s@c/ret", "database": 3}),
        (
            "rediss://there?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem&db=2&health_check_interval=5",
            {"ssl": True, "ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem", "database": 2},
        ),
        ("unix://:s%40cret@/run/redis.sock", {"unix_socket_path": "/run/redis.sock", "password": "s@cret"}),
        ("rediss://there/0", {"host": "there", "ssl": True, "sentinel": False}),
        ("unix:///run/redis.sock?db=3", {"unix_socket_path": "/run/redis.sock", "database": 3}),
        (
            "sentinel://ann:secret@one:1,two/mine/4",
            {
                "host": [("one", 1), ("two", 26379)],
                "sentinel": True,
                "sentinel_master": "mine",
                "database": 4,
                "username": "ann",
                "password": "secret",
            },
        ),
    ],
)  # fmt: skip
def test_arq_goes_where_the_address_says(settings, url, expected):
    settings.TASK_API_REDIS_URL = url
    found = redis_settings()
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("path", ["", "/", "/0"])
def test_arq_takes_the_addresses_that_the_checks_let_pass(settings, path):
    settings.TASK_API_REDIS_URL = f"redis://host{path}"
    assert (redis_settings().host, redis_settings().database) == ("host", 0)


def test_arq_waits_for_redis_however_long():
    assert redis_settings().conn_retries * redis_settings().conn_retry_delay > 365 * 24 * 3600


# manage.py taskworker


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--concurrency", "0"], "--concurrency"),
        (["--concurrency", "many"], "--concurrency"),
        (["--concurrency", "-1"], "--concurrency"),
        (["--processes", "0"], "--processes"),
        (["--processes", "1.5"], "--processes"),
        (["--grace", "long"], "--grace"),
        (["--queue"], "--queue"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_its_name(options, word):
    with pytest.raises(CommandError, match=f"argument {word}"):
        call_command("taskworker", *options)


@pytest.mark.usefixtures("queue")
def test_the_worker_of_another_backend_is_not_this_one():
    with pytest.raises(CommandError, match="does not use this worker"):
        call_command("taskworker")


# A worker on a plain queue


class PlainBackend(Backend, WorkerQueue):
    """Both sides of a queue in this process. It has what it must have, and no more."""

    def __init__(self):
        self.jobs = SimpleQueue()
        self.away = False

    def enqueue(self, uuid, *, queue, run_at=None):
        self.jobs.put(uuid)

    def worker_queue(self, queues):
        return self

    async def take(self, seconds):
        if self.away:
            raise QueueUnavailable("nobody there")
        try:
            return await asyncio.to_thread(self.jobs.get, timeout=seconds)
        except Empty:
            return None


class Double(Task):
    name = "double"
    inputs = {"n": IntParameter()}
    outputs = {"n": IntParameter()}

    async def run(self, n):
        return 2 * n


@pytest.fixture
def plain(settings, memory_layer, transactional_db):
    settings.TASK_API_BACKEND = "tests.unit.test_worker.PlainBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Double]
    return get_backend()


async def test_a_worker_works_on_a_queue_that_has_only_what_it_must_have(plain, caplog):
    caplog.set_level("INFO")
    started = [await Double.astart({"n": n}) for n in range(20)]
    plain.jobs.put(uuid4())  # there is no row of it: the queue drops the job
    assert await Worker(burst=True).main() is True
    assert [await info.aresult(timeout=20) for info in started] == [{"n": 2 * n} for n in range(20)]
    assert "it executed 20 runs" in caplog.text


async def test_a_worker_waits_for_a_queue_that_is_away(plain, monkeypatch, caplog):
    monkeypatch.setattr("taskapi.workers.worker.FIRST_PAUSE", 0.01)
    plain.away = True
    worker = Worker()
    working = asyncio.ensure_future(worker.main())
    info = await Double.astart({"n": 1})
    await until(lambda: "The queue is unavailable: nobody there; next try in 0.0 s." in caplog.text)
    plain.away = False
    assert await info.aresult(timeout=20) == {"n": 2}
    worker.stop()
    assert await working is True


@pytest.mark.usefixtures("plain")
async def test_the_signals_of_a_worker_are_its_own():
    worker = Worker()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    working = asyncio.ensure_future(worker.main())
    info = await Double.astart({"n": 1})
    await info.aresult(timeout=20)
    signal.raise_signal(signal.SIGTERM)
    assert await working is True
    for number, handler in before.items():
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, handler)


def test_a_backend_has_a_queue_for_workers_if_it_defines_one():
    assert PlainBackend().has_worker_queue
    assert not ListBackend().has_worker_queue
    with pytest.raises(NotImplementedError, match="ListBackend has no `worker_queue`"):
        ListBackend().worker_queue(["default"])


@pytest.mark.usefixtures("queue")
def test_the_command_says_what_to_do_for_a_backend_without_one():
    with pytest.raises(CommandError, match=r"TASK_API_BACKEND is 'tests.*ListBackend'.*set TASK_API_BACKEND to one"):
        call_command("taskworker")
