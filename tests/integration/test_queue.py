"""The queue in a real Valkey: laid out as arq lays it out, handed to one worker at a time."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from arq.connections import ArqRedis, create_pool
from arq.constants import expires_extra_ms
from arq.jobs import Job, JobStatus
from arq.worker import async_check_health
from django.utils import timezone

from taskapi.backends import get_backend
from taskapi.backends.arq import ArqBackend, ArqQueue, versions
from taskapi.backends.arq.command import redis_settings
from taskapi.backends.arq.layout import health_key, queue_key, serialize
from taskapi.events import channel_layer
from taskapi.events.pubsub import own_layer
from taskapi.tasks import Task
from tests.support.waiting import until

DAY = expires_extra_ms


@pytest.fixture
def backend(valkey: str) -> ArqBackend:
    backend = get_backend()
    assert isinstance(backend, ArqBackend)
    return backend


@pytest.fixture
def client(valkey: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey) as client:
        yield client


@pytest.fixture
async def worker(valkey: str) -> AsyncIterator[ArqQueue]:
    queue = ArqQueue(["default"])
    yield queue
    await queue.close()


@pytest.fixture
async def arq(valkey: str) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(redis_settings(), job_serializer=serialize, job_deserializer=json.loads)
    yield pool
    await pool.aclose()


def enqueue(backend: ArqBackend, queue: str = "default", **options: Any) -> UUID:
    uuid = uuid4()
    backend.enqueue(uuid, queue=queue, **options)
    return uuid


def soon(**delta: float) -> Any:
    return timezone.now() + timedelta(**delta)


# The layout is arq's


def contents(client: redis.Redis) -> dict[bytes, Any]:
    """Everything in Redis except times, which differ a little."""
    found: dict[bytes, Any] = {}
    for key in client.scan_iter():
        if client.type(key) == b"zset":
            found[key] = client.zrange(key, 0, -1)
        else:
            found[key] = json.loads(client.get(key)) | {"et": "about now"}
    return found


async def test_a_job_is_what_arqs_own_enqueue_job_writes(backend, client, arq):
    """The test fails if a new arq lays out its queue in another way."""
    uuid, queue = uuid4(), queue_key("default")
    await arq.enqueue_job("run_task", uuid.hex, _job_id=uuid.hex, _queue_name=queue)
    theirs, their_score = contents(client), client.zscore(queue, uuid.hex)
    their_lifetime = client.pttl(f"arq:job:{uuid.hex}")
    client.flushall()
    backend.enqueue(uuid, queue="default")
    assert contents(client) == theirs
    assert 0 <= client.zscore(queue, uuid.hex) - their_score < 10_000  # milliseconds of the epoch
    assert abs(client.pttl(f"arq:job:{uuid.hex}") - their_lifetime) < 10_000


async def test_arqs_own_tools_see_the_job(backend, arq):
    uuid = enqueue(backend)
    (queued,) = await arq.queued_jobs(queue_name=queue_key("default"))
    assert (queued.function, queued.args, queued.kwargs, queued.job_id) == ("run_task", [uuid.hex], {}, uuid.hex)
    job = Job(uuid.hex, arq, _queue_name=queue_key("default"), _deserializer=json.loads)
    assert await job.status() is JobStatus.queued


def test_nothing_in_redis_is_pickled(backend, client):
    for options in ({}, {"run_at": soon(hours=1)}):
        uuid = enqueue(backend, **options)
        job = json.loads(client.get(f"arq:job:{uuid.hex}"))
        assert (job["f"], job["a"], job["k"]) == ("run_task", [uuid.hex], {})


def test_runs_that_are_queued_together_are_sent_at_the_end_as_one(backend, client):
    sent = client.info("commandstats")["cmdstat_evalsha"]["calls"] if enqueue(backend) else None
    client.delete(queue_key("default"))
    moment = soon(hours=1)
    with backend.together():
        queued = [enqueue(backend) for _ in range(20)]
        later = enqueue(backend, run_at=moment)
        assert client.zcard(queue_key("default")) == 0
    assert client.zrange(queue_key("default"), 0, -1) == [uuid.hex.encode() for uuid in queued]
    assert client.zscore(f"{queue_key('default')}:deferred", later.hex) == pytest.approx(
        moment.timestamp() * 1000, abs=10_000
    )
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == sent + 1
    for uuid in (*queued, later):
        assert json.loads(client.get(f"arq:job:{uuid.hex}"))["a"] == [uuid.hex]
    enqueue(backend)
    assert client.zcard(queue_key("default")) == 21, "and later ones one by one again"


def test_each_of_the_runs_that_are_queued_together_goes_to_its_own_queue(backend):
    with backend.together():
        first, second = enqueue(backend, "first"), enqueue(backend, "second")
    assert backend.missing("first", [first, second]) == [second]
    assert backend.missing("second", [first, second]) == [first]


def test_what_was_queued_before_an_error_is_sent_all_the_same(backend):
    """Its row is committed, or it would not have been queued."""
    with suppress(ValueError), backend.together():
        uuid = enqueue(backend)
        raise ValueError
    assert backend.missing("default", [uuid]) == []


# Taking


async def test_jobs_are_taken_once_and_in_the_order_of_their_queues(backend, client, valkey):
    queue = ArqQueue(["first", "second"])
    later, sooner = enqueue(backend, "second"), enqueue(backend, "first")
    assert [await queue.take(0.01) for _ in range(3)] == [sooner, later, None]
    await queue.close()


async def test_jobs_are_taken_in_the_order_in_which_they_were_queued(backend, worker):
    """Several of them within each millisecond."""
    queued = [enqueue(backend) for _ in range(50)]
    assert [await worker.take(1) for _ in queued] == queued


async def test_a_run_that_is_queued_again_keeps_its_place(backend, worker):
    """A sweep, or a worker that hands back, may queue what is queued already."""
    first, second = enqueue(backend), enqueue(backend)
    backend.enqueue(first, queue="default")
    assert [await worker.take(1) for _ in range(2)] == [first, second]


async def test_a_deferred_job_that_is_due_does_not_take_a_run_that_is_queued_out_of_its_place(backend, client, worker):
    first, second = enqueue(backend), enqueue(backend)
    (_, place) = client.zrange(queue_key("default"), 1, 1, withscores=True)[0]
    client.zadd(queue_key("default") + ":deferred", {first.hex: place + 0.5})
    await until(lambda: client.time()[0] * 1000 > place + 1)
    assert await worker.promote() is None
    assert [await worker.take(1) for _ in range(2)] == [first, second]


async def test_a_queue_of_another_name_is_not_looked_at(backend, worker):
    enqueue(backend, "other")
    assert await worker.take(0.01) is None


async def test_a_run_that_is_queued_twice_is_one_job(backend, worker):
    uuid = enqueue(backend)
    backend.enqueue(uuid, queue="default")
    assert [await worker.take(0.01) for _ in range(2)] == [uuid, None]


async def test_what_is_queued_again_after_it_was_taken_is_taken_again(backend, worker):
    uuid = enqueue(backend)
    await worker.take(1)
    backend.enqueue(uuid, queue="default")
    assert await worker.take(1) == uuid


async def test_what_is_no_job_of_ours_is_dropped_and_the_next_one_taken(backend, client, worker, caplog):
    client.zadd(queue_key("default"), {"cron:something": 0})
    uuid = enqueue(backend)
    assert [await worker.take(0.01) for _ in range(2)] == [uuid, None]
    assert "cron:something" in caplog.text


async def blocked(client: redis.Redis, count: int) -> None:
    await until(lambda: client.info("clients")["blocked_clients"] == count)


async def test_a_waiting_worker_is_woken(backend, client, worker):
    taking = asyncio.ensure_future(worker.take(60))
    await blocked(client, 1)
    assert await asyncio.to_thread(enqueue, backend) == await taking


async def test_a_job_wakes_one_of_two_waiting_workers(backend, client, worker):
    other = ArqQueue(["default"])
    waiting = {asyncio.ensure_future(queue.take(60)) for queue in (worker, other)}
    await blocked(client, 2)
    first = await asyncio.to_thread(enqueue, backend)
    (woken,), waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert woken.result() == first
    await blocked(client, 1)  # the other one was not woken
    second = await asyncio.to_thread(enqueue, backend)
    assert await waiting.pop() == second
    await other.close()


async def test_a_worker_that_waits_takes_the_first_job_of_any_of_its_queues(backend, client, valkey):
    queue = ArqQueue(["first", "second"])
    taking = asyncio.ensure_future(queue.take(60))
    await blocked(client, 1)
    assert await asyncio.to_thread(enqueue, backend, "second") == await taking
    await queue.close()


# Setting aside


@pytest.fixture
async def of_version(monkeypatch, valkey):
    """Makes the queue of a worker of another version, which has said that it is there."""
    made = []

    async def make(name: str, *queues: str) -> ArqQueue:
        with monkeypatch.context() as patch:
            patch.setattr(versions, "version", lambda: name)
            queue = ArqQueue(queues or ["default"])
        made.append(queue)
        await queue.promote()
        return queue

    yield make
    for queue in made:
        await queue.close()


def leave(backend: ArqBackend, uuid: UUID, as_version: str, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(versions, "version", lambda: as_version)
        backend.set_aside(uuid, queue="default")


async def test_what_is_set_aside_is_for_workers_of_another_version(backend, client, worker, of_version):
    await worker.promote()
    other = await of_version("newer", "other", "default")
    waiting, waiting_here = (asyncio.ensure_future(queue.take(60)) for queue in (other, worker))
    await blocked(client, 2)
    uuid = uuid4()
    await asyncio.to_thread(backend.set_aside, uuid, queue="default")
    assert await waiting == uuid
    await blocked(client, 1)  # the one of this version was not woken
    assert await asyncio.to_thread(enqueue, backend) == await waiting_here


async def test_what_is_set_aside_is_taken_first_and_once(backend, of_version):
    queue = await of_version("newer")
    waiting, left = enqueue(backend), uuid4()
    for _ in range(2):
        backend.set_aside(left, queue="default")
    assert [await queue.take(0.01) for _ in range(3)] == [left, waiting, None]


async def test_each_version_that_is_there_is_asked_once(backend, of_version, monkeypatch):
    queues = {name: await of_version(name) for name in ("one", "two", "three")}
    uuid = uuid4()
    backend.set_aside(uuid, queue="default")
    asked = []
    for _ in queues:
        (name,) = [name for name, queue in queues.items() if await queue.take(0.01) == uuid]
        asked.append(name)
        leave(backend, uuid, name, monkeypatch)
    assert sorted(asked) == sorted(queues)
    assert [await queue.take(0.01) for queue in queues.values()] == [None] * 3


async def test_where_no_other_version_is_there_nothing_is_set_aside(backend, client, worker, of_version):
    await worker.promote()
    gone = await of_version("gone")
    await gone.close()
    await of_version("elsewhere", "another queue")
    backend.set_aside(uuid := uuid4(), queue="default")
    assert client.keys("*:version:*") == []
    (key,) = client.keys("*:left:*")
    assert key.decode().endswith(uuid.hex)
    assert 0 < client.ttl(key) <= 5


async def test_what_no_version_has_taken_that_is_there_goes_to_the_next_that_comes(
    backend, client, of_version, monkeypatch
):
    first = await of_version("first")
    uuids = [uuid4() for _ in range(3)]
    for uuid in uuids:
        backend.set_aside(uuid, queue="default")
        assert await first.take(0.01) == uuid
        leave(backend, uuid, "first", monkeypatch)
    assert 3590 < client.ttl("taskapi:queue:default:left") <= 3600
    second = await of_version("second")
    assert [await second.take(0.01) for _ in range(4)] == [*uuids, None]
    assert await first.take(0.01) is None
    assert not client.exists("taskapi:queue:default:left")


async def test_a_version_that_was_killed_is_soon_none_that_is_there(backend, client, of_version):
    await of_version("killed")
    assert client.zcount("taskapi:queue:default:versions", "-inf", "+inf") == 1
    ((_, until_then),) = client.zrange("taskapi:queue:default:versions", 0, -1, withscores=True)
    assert 10 < until_then / 1000 - float(".".join(map(str, client.time()))) <= 15
    client.zadd("taskapi:queue:default:versions", {"killed": 1})
    backend.set_aside(uuid4(), queue="default")
    assert client.keys("*:version:*") == []


async def test_what_is_set_aside_and_not_taken_does_not_stay_for_ever(backend, client, of_version):
    await of_version("newer")
    backend.set_aside(uuid4(), queue="default")
    (key,) = client.keys("*:version:*")
    assert 3590 < client.ttl(key) <= 3600


async def test_a_worker_blocks_on_as_many_keys_however_many_tasks_there_are(client, settings, valkey):
    settings.TASK_API_BACKGROUND_TASKS = [type(f"T{n}", (Task,), {"name": f"t{n}", "run": print}) for n in range(600)]
    queue = ArqQueue(["one", "two"])
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    await queue.take(0.01)
    (taking,) = [entry["command"] for entry in client.slowlog_get() if entry["command"].startswith(b"BZPOPMIN")]
    client.config_set("slowlog-log-slower-than", 10_000)
    assert len(taking.split()) == 1 + 2 * 2 + 1
    await queue.close()


# Jobs without a row


async def test_a_job_without_a_row_is_given_back_after_a_pause(backend, client, worker, caplog):
    uuid = enqueue(backend)
    assert await worker.take(1) == uuid
    await worker.give_back(uuid)
    assert client.zcard("taskapi:queue:default") == 0
    assert client.zrange("taskapi:queue:default:deferred", 0, -1) == [uuid.hex.encode()]
    assert 0 < await worker.promote() <= 1
    assert f"There is no run {uuid} in this worker's database" in caplog.text
    assert "TASK_API_REDIS_PREFIX" in caplog.text
    assert "the run was deleted" in caplog.text


async def test_it_does_not_go_round_for_ever(backend, client, worker, caplog):
    uuid = enqueue(backend)
    rounds = 0
    while await worker.take(0.01):
        rounds += 1
        await worker.give_back(uuid)
        client.zadd("taskapi:queue:default:deferred", {uuid.hex: 0}, xx=True)  # the pause is over
        await worker.promote()
    assert rounds == 11
    assert caplog.text.count("There is no run") == 1
    assert f"The job of run {uuid} is dropped" in caplog.text
    await worker.promote()
    assert client.keys("arq:job:*") == []
    assert all(client.ttl(key) > 0 for key in client.keys("*:stray:*") + client.keys("*:left:*"))


async def test_it_goes_at_once_to_a_worker_of_another_installation(backend, worker, of_version, caplog):
    uuid = enqueue(backend)
    assert await worker.take(1) == uuid
    other = await of_version("staging")
    await worker.give_back(uuid)
    assert await other.take(0.01) == uuid
    assert f"There is no run {uuid} in this worker's database" in caplog.text


async def test_a_prefix_keeps_two_installations_apart(backend, client, settings, worker):
    ours = enqueue(backend)
    settings.TASK_API_REDIS_PREFIX = "staging"
    theirs = enqueue(get_backend())
    staging = ArqQueue(["default"])
    assert [await staging.take(0.01) for _ in range(2)] == [theirs, None]
    assert [await worker.take(0.01) for _ in range(2)] == [ours, None]
    await staging.promote()
    await staging.record_health("done=0 running=0")
    await staging.give_back(theirs)
    get_backend().set_aside(theirs, queue="default")
    keys = {key.decode() for key in client.scan_iter() if not key.startswith((b"taskapi", b"arq:job:"))}
    assert {key.partition(":")[0] for key in keys} == {"staging"}
    assert channel_layer.group(theirs) == f"staging.run.{theirs.hex}"
    assert channel_layer.workers() == "staging.workers"
    assert channel_layer.get_layer()._kwargs["prefix"] == "staging"
    await staging.close()


# Deferring


async def test_a_deferred_job_is_not_handed_out_before_it_is_due(backend, client, worker):
    enqueue(backend, run_at=soon(hours=1))
    wait = await worker.promote()
    assert 3590 < wait <= 3600
    assert await worker.take(0.01) is None
    assert client.zcard(queue_key("default")) == 0


async def test_a_deferred_job_is_handed_out_once_it_is_due(backend, worker):
    moment = soon(milliseconds=50)
    uuid = enqueue(backend, run_at=moment)
    taken = None
    async with asyncio.timeout(10):
        while taken is None:
            await worker.promote()
            taken = await worker.take(0.01)
    assert taken == uuid
    assert timezone.now() >= moment - timedelta(milliseconds=5)  # scores are whole milliseconds
    assert await worker.promote() is None


async def test_a_job_whose_moment_has_passed_is_not_deferred(backend, worker):
    uuid = enqueue(backend, run_at=soon(hours=-1))
    assert await worker.take(0.01) == uuid


async def test_deferred_jobs_come_in_the_order_of_their_moments(client, worker):
    first, second, third = uuid4(), uuid4(), uuid4()
    client.zadd(queue_key("default") + ":deferred", {second.hex: 2, third.hex: 3, first.hex: 1})
    assert await worker.promote() is None
    assert [await worker.take(0.01) for _ in range(3)] == [first, second, third]


async def test_many_that_are_due_at_once_are_promoted_in_portions(client, worker):
    client.zadd(queue_key("default") + ":deferred", {uuid4().hex: n for n in range(1_500)})
    assert await worker.promote() == 0  # at once again
    assert client.zcard(queue_key("default")) == 1_000
    assert await worker.promote() is None
    assert client.zcard(queue_key("default")) == 1_500


async def test_the_next_of_all_queues_says_how_long_to_wait(backend, valkey):
    queue = ArqQueue(["first", "second", "third"])
    enqueue(backend, "first", run_at=soon(hours=2))
    enqueue(backend, "second", run_at=soon(hours=1))
    assert 3590 < await queue.promote() <= 3600
    await queue.close()


def test_a_deferred_job_outlives_its_delay(backend, client):
    uuid = enqueue(backend, run_at=soon(days=30))
    assert 30 * DAY < client.pttl(f"arq:job:{uuid.hex}") <= 31 * DAY


async def test_the_call_of_a_job_that_was_taken_is_cleared_away_by_the_next_look(backend, client, worker):
    taken, waiting, later = enqueue(backend), enqueue(backend), enqueue(backend, run_at=soon(hours=1))
    again, deferred = enqueue(backend), enqueue(backend)
    client.zadd(queue_key("default"), {again.hex: 0, deferred.hex: 1, taken.hex: 2})  # first in their order
    assert [await worker.take(1) for _ in range(3)] == [again, deferred, taken]
    backend.enqueue(again, queue="default")
    backend.enqueue(deferred, queue="default", run_at=soon(hours=1))
    await worker.promote()
    left = {key.decode().removeprefix("arq:job:") for key in client.scan_iter("arq:job:*")}
    assert left == {uuid.hex for uuid in (waiting, later, again, deferred)}


async def test_nor_does_one_stay_that_was_set_aside(backend, client, of_version):
    uuid = enqueue(backend)
    queue = await of_version("newer", "other", "default")
    client.zrem(queue_key("default"), uuid.hex)
    backend.set_aside(uuid, queue="default")
    assert await queue.take(1) == uuid
    await queue.promote()
    assert list(client.scan_iter("arq:job:*")) == []


# Other


def test_the_runs_that_have_no_job_are_found(backend):
    queued, deferred, elsewhere = enqueue(backend), enqueue(backend, run_at=soon(hours=1)), enqueue(backend, "other")
    lost = uuid4()
    assert backend.missing("default", [lost, queued, deferred, elsewhere]) == [lost, elsewhere]


def test_a_redis_that_has_forgotten_the_scripts_is_told_them_again(backend, client):
    enqueue(backend)
    client.script_flush()
    enqueue(backend)
    assert client.zcard(queue_key("default")) == 2


@pytest.mark.filterwarnings("ignore:Call to deprecated close")  # arq's own
async def test_a_worker_says_that_it_is_well_where_arq_looks_for_it(client, worker):
    assert await async_check_health(redis_settings(), health_key("default"), queue_key("default")) == 1
    await worker.record_health("done=1 running=0")
    assert await async_check_health(redis_settings(), health_key("default"), queue_key("default")) == 0
    assert 30 < client.ttl(health_key("default")) <= 60


# The channel layer of our own


async def test_a_layer_asks_now_and_then_whether_its_server_is_there(valkey, client, monkeypatch):
    monkeypatch.setattr("taskapi.backends.redis.clients.SILENCE", 0.1)
    client.config_resetstat()
    own_layer.cache_clear()
    layer = channel_layer.get_layer()
    channel = await layer.new_channel()
    await until(lambda: client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] > 2)
    connection = layer._get_layer()._shards[0]._pubsub.connection
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening = connection._writer.get_extra_info("socket")
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    await layer.group_add("followers", channel)
    await layer.group_send("followers", {"type": "hello"})
    assert await layer.receive(channel) == {"type": "hello"}, "and not what the server said to that"
    await layer.flush()
