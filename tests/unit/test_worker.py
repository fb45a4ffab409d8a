"""The worker's two front doors: what arq reads of WorkerSettings, and the options of `manage.py taskworker`."""

import json

import pytest
from arq.worker import create_worker
from django.core.management import CommandError, call_command

from taskapi.worker import WorkerSettings, redis_settings, run_task, work

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
