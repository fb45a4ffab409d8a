"""`python -m demo` as its user sees it: what it prints, and what is left after its end."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.support.demo import ROOT, STOP_LIMIT, Demo, descendants, living, refused
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(120)  # seconds: each starts, uses and ends five processes


@pytest.fixture
def demo(tmp_path):
    with Demo(tmp_path) as demo:
        yield demo


def test_sigterm_ends_everything(demo):
    started = descendants(demo.process.pid)
    for part in ("daphne", "taskworker", "demo.valkey", "valkey-server"):
        assert any(part in command for command in started.values()), started
    assert demo.stop(signal.SIGTERM) == 0
    assert living(started) == {}
    assert demo.text.endswith("Stopped.\n")
    assert "Traceback" not in demo.text


def test_ctrl_c_ends_everything_and_the_run_that_it_cut_short_goes_on_after_the_next_start(demo):
    run = httpx.post(f"{demo.url}tasks/", json={"task": "wait", "inputs": {"seconds": 5}}).json()
    wait_for(lambda: httpx.get(f"{demo.url}tasks/{run['uuid']}/").json()["progress"])
    started = descendants(demo.process.pid)
    assert demo.stop(signal.SIGINT) == 0
    assert living(started) == {}
    demo.start()
    wait_for(lambda: httpx.get(f"{demo.url}tasks/{run['uuid']}/").json()["status"] == "succeeded", limit=60)


SLOW_PAGE = """
import sys
from pathlib import Path
from demo import launcher

launcher.START_LIMIT = 15
usual = launcher.Launcher.spawn
slow = "tests.support.slow_page"
launcher.Launcher.spawn = lambda self, name, module, *more, keep: usual(self, name, slow, *more, keep=keep)
demo = launcher.Launcher("127.0.0.1", 0, Path(sys.argv[1]), None)
demo.prepare_data_dir()
with demo.listen() as listener:
    demo.port = listener.getsockname()[1]
    try:
        demo.start_web(listener)
    finally:
        demo.stop()
"""


def test_a_page_that_takes_its_time_is_waited_for(tmp_path):
    """The pages are slow, as after a restart with open tabs, whose requests are answered first."""
    subprocess.run([sys.executable, "-c", SLOW_PAGE, str(tmp_path)], cwd=ROOT, timeout=60, check=True)


def test_kill_9_leaves_no_process_behind(demo):
    started = descendants(demo.process.pid)
    demo.process.kill()
    demo.wait()
    wait_for(lambda: living(started) == {}, STOP_LIMIT)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("taskworker", "“worker” ended by itself (signal SIGKILL), so the demo stops."),
        ("valkey-server", "valkey-server ended by itself."),
    ],
)
def test_the_death_of_a_part_ends_the_rest_and_is_told(demo, part, told):
    started = descendants(demo.process.pid)
    os.kill(next(pid for pid, command in started.items() if part in command), signal.SIGKILL)
    assert demo.wait() == 1
    assert told in demo.text
    assert "Traceback" not in demo.text
    assert living(started) == {}


def test_a_busy_port_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = refused(f"--port={port}", f"--data={tmp_path}")
    assert said.strip() == (
        f"Port {port} on 127.0.0.1 is in use. Stop what listens there, or choose another port: "
        f"python -m demo --port {port + 1}"
    )


def test_a_second_demo_on_the_same_folder_is_one_sentence(demo):
    said = refused(*demo.arguments)
    assert said.strip().startswith("A demo is running on ")
    assert "python -m demo --data FOLDER" in said


def test_an_address_of_another_machine_is_one_sentence(tmp_path):
    said = refused("--host=192.0.2.1", f"--data={tmp_path}")
    assert said.strip().startswith("The demo cannot listen on 192.0.2.1 port 8000 (")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    said = refused("--port=0", f"--data={tmp_path / 'file'}")
    assert said.strip().startswith(f"The demo cannot write to {tmp_path / 'file'} (")


def test_a_valkey_that_does_not_start_is_told_with_a_remedy(tmp_path):
    (tmp_path / "valkey").touch()  # a file where its folder would be
    said = refused("--port=0", f"--data={tmp_path}")
    assert "“valkey” ended by itself (exit code 1), so the demo stops." in said
    assert "python -m demo --redis redis://" in said


def test_an_older_python_is_one_sentence():
    program = "import runpy, sys; sys.version_info = (3, 9, 1); runpy.run_module('demo', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "The demo needs Python 3.11 or newer, and this is Python 3.9. "
        "Install a newer one and start the demo with it: python3.11 -m demo"
    )


def test_a_missing_package_is_one_sentence(tmp_path):
    program = (
        "import sys; from demo import launcher; launcher.PACKAGES['no_such_module'] = 'no-such-package'; "
        f"sys.exit(launcher.main(['--port=0', '--data={tmp_path}']))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().startswith("The demo needs no-such-package, not installed for ")
    assert "`make demo` installs what is needed" in result.stderr
