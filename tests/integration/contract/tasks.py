"""Tasks that misbehave, and tasks for the rest of the contract."""

import asyncio
import math
import sys
import time
from pathlib import Path

from django.contrib.auth.models import Group
from django.db import transaction
from rest_framework.permissions import IsAuthenticated
from rest_framework.throttling import UserRateThrottle

from taskapi.exceptions import TaskError
from taskapi.params import (
    DictParameter,
    IntParameter,
    JSONParameter,
    ListParameter,
    NumberParameter,
    StringParameter,
)
from taskapi.tasks import Task

# One JSON value of each kind, and values that are hard for databases and encoders.
EVERYTHING = [
    None, True, False, 0, -1, 1.5, 1e300, 2**53, 2**70, "", "text", "null", "\0", "a\0b", "\u2028\u2029", "é€😀",
    "\ud83d", '"\\/', "x" * 100_000, [], {}, [[], {}], {"": None}, {"a\0b": 1, "b": [1, {"c": "\0"}], "a": 2},
]  # fmt: skip


class Unspeakable(Exception):
    """Raises even if its text is asked for."""

    def __str__(self):
        raise RuntimeError("no words")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


class Say(Task):
    name = "say_these"
    inputs = {"messages": JSONParameter()}

    def run(self, messages):
        for message in messages:
            self.add_message(message)


class SayEverything(Task):
    name = "say_everything"

    def run(self):
        for value in EVERYTHING:
            self.add_message(value)


class Nest(Task):
    """Add a list of so many levels as a message."""

    name = "nest"
    inputs = {"levels": IntParameter()}

    def run(self, levels):
        self.add_message(deep(levels))


class Fussy(Task):
    """Raise in the constructor."""

    name = "fussy"

    def __init__(self):
        raise RuntimeError("not today")

    def run(self):
        pass


class Return(Task):
    name = "return"
    inputs = {"value": JSONParameter()}
    outputs = {"number": NumberParameter(), "text": StringParameter(required=False)}

    def run(self, value):
        return value


class AsyncReturn(Return):
    name = "async_return"

    async def run(self, value):
        return value


class ReturnOdd(Task):
    """Return values that JSON cannot hold."""

    name = "return_odd"
    inputs = {"kind": StringParameter()}
    outputs = {"value": JSONParameter()}

    def run(self, kind):
        return {
            "nan": math.nan,
            "infinity": math.inf,
            "deep": deep(900),
            "object": object(),
            "bytes": b"x",
            "surrogate": "\ud83d",
            "key": {1: "one"},
        }[kind]


def misbehave(kind):  # noqa: PLR0912 - a branch for each way to misbehave
    match kind:
        case "runtime_error":
            raise RuntimeError("the password is swordfish")
        case "task_error":
            raise TaskError("Sorry: \0 é 😀")
        case "exit":
            sys.exit(3)
        case "keyboard_interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "generator_exit":
            raise GeneratorExit
        case "stop_iteration":
            raise StopIteration
        case "recursion":
            misbehave(kind)
        case "nul":
            raise RuntimeError("a\0b")
        case "surrogate":
            raise RuntimeError("\ud83d")
        case "task_error_surrogate":
            raise TaskError("\ud83d")
        case "unspeakable":
            raise Unspeakable
        case "unspeakable_task_error":
            raise TaskError(Unspeakable())
        case "group":
            raise ExceptionGroup("several", [ValueError("a"), RuntimeError("b")])
        case "broken_transaction":
            with transaction.atomic():
                Group.objects.create(name="once")
                Group.objects.create(name="once")


class Raise(Task):
    name = "raise"
    inputs = {"kind": StringParameter()}

    def run(self, kind):
        misbehave(kind)


class AsyncRaise(Raise):
    name = "async_raise"

    async def run(self, kind):
        misbehave(kind)


class Progress(Task):
    """Set the progress to each of these values."""

    name = "progress"
    inputs = {"target": IntParameter(required=False), "values": ListParameter(NumberParameter())}

    def run(self, values, target=None):
        if target is not None:
            self.set_target(target)
        for value in values:
            self.set_progress(value)


class HalfWay(Task):
    """Get half way, then say nothing until the test opens the gate."""

    name = "half_way"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.set_target(2)
        self.set_progress(1)
        Path(gate).read_bytes()
        self.add_message("on")
        self.set_progress(2)


class Patient(Task):
    """Work until it is interrupted."""

    name = "patient"
    timeout = 60

    def run(self):
        self.add_message("begun")
        while True:
            self.inc_progress()
            time.sleep(0.001)  # let other threads work


class Track(Task):
    name = "track"
    inputs = {"items": ListParameter(IntParameter())}
    outputs = {"sum": IntParameter()}

    def run(self, items):
        return sum(self.track(items))


class AsyncTrack(Track):
    name = "async_track"

    async def run(self, items):
        async def stream():
            for item in items:
                yield item

        return sum([item async for item in self.track(stream(), target=len(items))])


class UseDatabase(Task):
    """Write and read rows in a transaction, between two progress calls."""

    name = "use_database"
    inputs = {"name": StringParameter()}
    outputs = {"found": IntParameter()}

    def run(self, name):
        self.set_target(2)
        with transaction.atomic():
            Group.objects.create(name=name)
            self.inc_progress()
        self.inc_progress()
        return Group.objects.filter(name=name).count()


class AsyncUseDatabase(UseDatabase):
    name = "async_use_database"

    async def run(self, name):
        await Group.objects.acreate(name=name)
        return await Group.objects.filter(name=name).acount()


class WhoAmI(Task):
    name = "who_am_i"
    outputs = {"info": DictParameter()}

    def run(self):
        info = self.info
        return {
            "info": {"uuid": str(info.uuid), "user": info.user and info.user.username, "attempt": info.attempt},
        }


class Members(Task):
    """A task with its own permission, in a project that allows everybody."""

    name = "members"
    permission_classes = [IsAuthenticated]

    def run(self):
        pass


class _OncePerDay(UserRateThrottle):
    rate = "1/day"


class OncePerDay(Task):
    name = "once_per_day"
    throttle_classes = [_OncePerDay]

    def run(self):
        pass


class Large(Task):
    """Add so many lines as messages, then one of `message` characters; return a text of `outputs` characters."""

    name = "large"
    inputs = {"lines": IntParameter(default=0), "message": IntParameter(default=0), "outputs": IntParameter(default=0)}
    outputs = {"text": StringParameter()}

    def run(self, lines, message, outputs):
        for number in range(lines):
            self.add_message(f"line {number}: {'.' * 80}")
        if message:
            self.add_message("x" * message)
            self.add_message("after it")
        return "x" * outputs
