"""How a task is called inline: what its call looks at, and what it does not take with it."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.utils import timezone, translation

from taskapi.exceptions import Interrupted
from taskapi.runs import Outcome
from taskapi.tasks.progress import Speaker
from taskapi.workers.call import TaskCall

T = TypeVar("T")


class InlineSpeaker(Speaker):
    """Looks at the clock at each call of its task, in place of a timer."""

    __slots__ = ("look",)

    look: Callable[[], object]

    def check_interrupted(self) -> None:
        self.look()
        super().check_interrupted()


class InlineCall(TaskCall):
    """A call whose exceptions are kept, and whose values are converted in the thread of the caller."""

    raised: BaseException | None = None
    escaped: BaseException | None = None  # it was not raised for the task: Ctrl-C, or `pytest.fail()`

    def fail(self, error: BaseException) -> Outcome:
        self.raised = error
        if not isinstance(error, (Exception, Interrupted, asyncio.CancelledError, SystemExit)):
            self.escaped = error
        return super().fail(error)

    async def _convert(self, threads: object, function: Callable[..., T], *args: Any) -> T:
        return await sync_to_async(function)(*args)


def as_in_a_worker() -> None:
    """What the caller has activated is not known to a worker; and what the task activates ends with it."""
    translation.deactivate()
    timezone.deactivate()
    decimal.setcontext(decimal.getcontext().copy())  # a copied context still shares its decimal context
