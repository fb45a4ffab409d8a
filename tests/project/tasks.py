"""The tasks of the integration tests: each shows one thing that a task can do."""

import asyncio
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction

from taskapi.exceptions import TaskError
from taskapi.params import IntParameter, ListParameter, NumberParameter, StringParameter
from taskapi.tasks import Task


class Sum(Task):
    """Add numbers, as in the 1.x documentation."""

    name = "sum"
    inputs = {"numbers": ListParameter(NumberParameter())}
    outputs = {"sum": NumberParameter()}

    def run(self, numbers):
        return sum(numbers)


class AsyncSum(Sum):
    name = "async_sum"

    async def run(self, numbers):
        return sum(numbers)


class Count(Task):
    """Count to `n` as fast as possible."""

    name = "count"
    inputs = {"n": IntParameter()}
    outputs = {"counted": IntParameter()}

    def run(self, n):
        self.set_target(n)
        for _ in range(n):
            self.inc_progress()
        return n


class AsyncCount(Count):
    name = "async_count"

    async def run(self, n):
        self.set_target(n)
        for _ in range(n):
            self.inc_progress()
            await asyncio.sleep(0)
        return n


class Say(Task):
    """Add the numbers up to `n` as messages."""

    name = "say"
    inputs = {"n": IntParameter()}

    def run(self, n):
        for number in range(n):
            self.add_message({"number": number})


class Hold(Task):
    """Wait until the test opens the gate (`tests.support.gate`), between two messages."""

    name = "hold"
    inputs = {"gate": StringParameter()}

    def run(self, gate):
        self.add_message("held")
        Path(gate).read_bytes()
        self.add_message("let go")


class AsyncHold(Hold):
    name = "async_hold"

    async def run(self, gate):
        self.add_message("held")
        await asyncio.to_thread(Path(gate).read_bytes)
        self.add_message("let go")


class Refuse(Task):
    """Fail with a message for the caller."""

    name = "refuse"
    inputs = {"message": StringParameter()}

    def run(self, message):
        raise TaskError(message)


class Crash(Task):
    """Fail with an exception whose text is secret."""

    name = "crash"

    def run(self):
        raise RuntimeError("the password is swordfish")


# On a queue that the stack's worker does not serve: for tests that start their own workers.


class AsideHold(Hold):
    name = "aside_hold"
    queue = "aside"


class AsideAsyncHold(AsyncHold):
    name = "aside_async_hold"
    queue = "aside"


class AsideQuick(Task):
    """Do nothing."""

    name = "aside_quick"
    queue = "aside"

    def run(self):
        pass


class AsidePatient(Task):
    """Work until it is interrupted; the second attempt returns at once."""

    name = "aside_patient"
    queue = "aside"
    outputs = {"attempt": IntParameter()}

    def run(self):
        self.add_message(f"attempt {self.info.attempt}")
        while self.info.attempt == 1:
            self.inc_progress()
        return self.info.attempt


# With the ORM


class AddUser(Task):
    """Add the user if it does not exist, and count all users."""

    name = "add_user"
    inputs = {"name": StringParameter()}
    outputs = {"users": IntParameter()}

    def run(self, name):
        with transaction.atomic():
            User.objects.get_or_create(username=name)
            return User.objects.count()


class AsyncAddUser(AddUser):
    name = "async_add_user"

    async def run(self, name):
        await User.objects.aget_or_create(username=name)
        return len([user async for user in User.objects.all()])


class Rollback(Task):
    """Add a user, and roll back."""

    name = "rollback"
    inputs = {"name": StringParameter()}
    outputs = {"users": IntParameter()}

    def run(self, name):
        with transaction.atomic():
            User.objects.create(username=name)
            self.add_message("added")
            transaction.set_rollback(True)
        return User.objects.filter(username=name).count()


class WhoAmI(Task):
    """Return the name of the run's user."""

    name = "who_am_i"
    outputs = {"user": StringParameter(required=False)}

    def run(self):
        return self.info.user and self.info.user.username
