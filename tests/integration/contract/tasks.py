"""Tasks that do what tasks are not meant to do, and the rest of what they are."""

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

# One of each kind of JSON value, and those that databases and encoders stumble over.
EVERYTHING = [
    None, True, False, 0, -1, 1.5, 1e300, 2**53, 2**70, "", "text", "null", "\0", "a\0b", "\u2028\u2029", "é€😀",
    "\ud83d", '"\\/', "x" * 100_000, [], {}, [[], {}], {"": None}, {"a\0b": 1, "b": [1, {"c": "\0"}], "a": 2},
]  # fmt: skip


class Unspeakable(Exception):
    """Not even its text can be had."""

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
    """Say a list of so many levels."""

    name = "nest"
    inputs = {"levels": IntParameter()}

    def run(self, levels):
        self.add_message(deep(levels))


class Fussy(Task):
    """A task that cannot even be made."""

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
    """Return what JSON has no form for."""

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


def misbehave(kind):  # noqa: PLR0912 - one branch for each way to misbehave
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
    """Set the progress to each of the values."""

    name = "progress"
    inputs = {"target": IntParameter(required=False), "values": ListParameter(NumberParameter())}

    def run(self, values, target=None):
        if target is not None:
            self.set_target(target)
        for value in values:
            self.set_progress(value)


class HalfWay(Task):
    """Come half way, and be quiet until the test opens the gate."""

    name = "half_way"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.set_target(2)
        self.set_progress(1)
        Path(gate).read_bytes()
        self.add_message("on")
        self.set_progress(2)


class Patient(Task):
    """Work until told to stop."""

    name = "patient"
    timeout = 60

    def run(self):
        self.add_message("begun")
        while True:
            self.inc_progress()
            time.sleep(0.001)  # and let others work


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
    """Write and read rows, in a transaction, between two pieces of progress."""

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
    """A task with a permission of its own, in a project that lets everybody in."""

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
    """Say so many lines, then a message of so many characters, and return a text of so many."""

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
