"""Runs the curl samples of a page with the real curl, and compares the answers with what the page says of them.

- A sample is a block that begins with ``curl``. What the page says of it follows, up to the next sample or heading.
- "The answer is 201" there is the status that the answer must have; without such words it is any of success.
- The first block of JSON there is the answer: the same keys, with values of the same types. `null` may stand for any
  value, on either side. ``"…": "…"`` says that there are more keys. A list has an item like each that the page shows.
- The server's address is replaced, and so is the uuid of a run: by that of a run that waits, or of one that has ended
  if it is to be started again. The page's user and token are the server's.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.docs.pages import FENCE, text_of
from tests.support.stack import Stack
from tests.support.waiting import wait_for

ADDRESS = "http://127.0.0.1:8000"  # the server's, in samples
UUID_IN_PATH = re.compile(r"(?<=/tasks/)[0-9a-f-]{36}(?=/)")
STATUS = re.compile(r"\b[Tt]he answer is (\d{3})\b")
HEADING = re.compile(r"^#+ ", re.MULTILINE)
NEEDS_THE_END = ("/retry/", "/events/", "If-None-Match", "Prefer: wait")  # calls about a run that has ended
TAG = '"1000000008"'  # the entity tag of a run, in samples
LIMIT = 30  # seconds for a sample

USER, PASSWORD, TOKEN = "ann", "password", "0123abcd"  # the caller of the samples
MAKE_USER = f"""
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
user = User.objects.create_user({USER!r}, password={PASSWORD!r})
Token.objects.create(user=user, key={TOKEN!r})
"""


class DocsStack(Stack):
    """Servers for the samples of a page; the user of the samples has a run that has ended."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": "tests.docs.settings"}

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.manage("shell", "--verbosity=0", "-c", MAKE_USER)
            self.ended_run(auth=(USER, PASSWORD))
        except BaseException:
            self.__exit__()
            raise
        return self

    def waiting_run(self) -> str:
        """The uuid of a new run that no worker takes."""
        with self.client() as client:
            uuid: str = client.post("/tasks/", json={"task": "aside_quick"}).json()["uuid"]
            return uuid

    def ended_run(self, **options: Any) -> str:
        """The uuid of a new run that has ended."""
        with self.client() as client:
            call = {"task": "sum", "inputs": {"numbers": [1, 2, 3.5]}}
            uuid: str = client.post("/tasks/", json=call, **options).json()["uuid"]
            wait_for(lambda: client.get(f"/tasks/{uuid}/", **options).json()["status"] == "succeeded")
            return uuid


class Sample(NamedTuple):
    """A call, and what the page says of its answer."""

    line: int
    command: str
    status: int | None
    body: Any  # None: the page does not show it


def curl_samples(page: str) -> list[Sample]:
    """The samples of the page, in order."""
    text = text_of(page)
    fences = list(FENCE.finditer(text))
    calls = [fence for fence in fences if fence[2] == "sh" and fence[3].startswith("curl ")]
    samples = []
    for call in calls:
        ends = [fence.start() for fence in calls if fence.start() > call.start()]
        ends += [heading.start() for heading in HEADING.finditer(text, call.end())]
        end = min(ends, default=len(text))
        status = STATUS.search(FENCE.sub("", text[call.end() : end]))
        bodies = [fence[3] for fence in fences if call.end() < fence.start() < end and fence[2] == "json"]
        line = text.count("\n", 0, call.start()) + 2
        samples.append(Sample(line, call[3], status and int(status[1]), json.loads(bodies[0]) if bodies else None))
    return samples


def check_sample(sample: Sample, stack: DocsStack, folder: Path) -> None:
    """Call the server as the sample does; AssertionError if the answer is not as the page says."""
    command = sample.command.replace(ADDRESS, stack.url)
    if UUID_IN_PATH.search(command):
        ended = any(path in command for path in NEEDS_THE_END)
        uuid = stack.ended_run() if ended else stack.waiting_run()
        command = UUID_IN_PATH.sub(uuid, command)
        if TAG in command:
            with stack.client() as client:
                command = command.replace(TAG, client.get(f"/tasks/{uuid}/").headers["ETag"])
    answer = folder / "answer"
    options = [
        "--silent",
        "--show-error",
        "--max-time",
        str(LIMIT),
        "--output",
        str(answer),
        "--write-out",
        "%{http_code}",
    ]
    said = subprocess.run([*shlex.split(command), *options], capture_output=True, text=True, check=True).stdout
    status, text = int(said), answer.read_text() if answer.exists() else ""  # 304 has no body
    if sample.status is None:
        assert 200 <= status < 300, text
    else:
        assert status == sample.status, text
    if sample.body is not None:
        compare(sample.body, json.loads(text))


MORE = "…"


def compare(said: Any, value: Any, place: str = "the answer") -> None:
    """AssertionError if the value is not of the shape that the page shows."""
    if said is None or value is None:
        return
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        assert isinstance(value, (int, float)), f"{place} is {value!r}, and the page says {said!r}"
        return
    assert type(value) is type(said), f"{place} is {value!r}, and the page says {said!r}"
    if isinstance(said, dict):
        names = said.keys() - {MORE}
        assert names <= value.keys(), f"{place} has no {sorted(names - value.keys())}"
        assert MORE in said or names == value.keys(), (
            f"the page does not say that {place} has {sorted(value.keys() - names)}"
        )
        for name in names:
            compare(said[name], value[name], f"{place}[{name!r}]")
    elif isinstance(said, list):
        assert bool(value) is bool(said), f"{place} is {value!r}, and the page says {said!r}"
        for number, item in enumerate(said):
            compare_with_any(item, value, f"{place}[{number}]")


def compare_with_any(said: Any, values: list[Any], place: str) -> None:
    faults = []
    for value in values:
        try:
            return compare(said, value, place)
        except AssertionError as fault:
            faults.append(fault)
    raise faults[0]
