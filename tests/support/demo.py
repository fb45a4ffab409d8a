"""`python -m demo`, started for a test."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
START_LIMIT = 40.0  # seconds until it serves; a busy machine takes ten
STOP_LIMIT = 30.0  # seconds until the last process has ended; the demo's own limit is 12 for each


class Demo:
    """The demo, on a port that the system chooses, with its own folder."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.output = directory / "output.txt"
        self.arguments = ["--port=0", f"--data={directory / 'data'}", *arguments]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start the demo, and wait until it prints its address."""
        self.spawn()
        self.url: str = wait_for(self.announced_url, START_LIMIT)

    def spawn(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo", *self.arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    def announced_url(self) -> str | None:
        assert self.process.poll() is None, f"the demo ended: {self.text}"
        found = re.search(r"http://\S+", self.text)
        return found and found[0]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the demo, and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the demo has ended, and return its exit code."""
        return self.process.wait(STOP_LIMIT)

    @property
    def text(self) -> str:
        """Everything that the demo has printed."""
        return self.output.read_text()


def refused(*arguments: str) -> str:
    """Run the demo with arguments that it refuses, and return what it prints; its exit code has to be 1."""
    result = subprocess.run(
        [sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=40, check=False
    )
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    return result.stderr


def descendants(pid: int) -> dict[int, str]:
    """The command lines of all descendants of a process, by process id."""
    children: dict[int, list[int]] = {}
    commands = {}
    listing = subprocess.run(["ps", "-Awwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)  # noqa: S607
    for line in listing.stdout.splitlines():
        child, parent, command = line.split(None, 2)
        children.setdefault(int(parent), []).append(int(child))
        commands[int(child)] = command
    found = {}
    ahead = [pid]
    while ahead:
        started = children.get(ahead.pop(), [])
        ahead += started
        found |= {child: commands[child] for child in started}
    return found


def living(pids: dict[int, str]) -> dict[int, str]:
    """Those that still run; a zombie does not."""
    states = subprocess.run(["ps", "-Ao", "pid=,stat="], capture_output=True, text=True, check=True).stdout  # noqa: S607
    running = {int(pid) for pid, state in map(str.split, states.splitlines()) if not state.startswith("Z")}
    return {pid: command for pid, command in pids.items() if pid in running}
