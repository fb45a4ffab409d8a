"""Executing one run inside a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from taskapi import runs
from taskapi.engines import immediate
from taskapi.models import TaskInfo
from taskapi.runs.moves import refresh
from taskapi.runs.starting import insert
from taskapi.tasks import Task


@dataclass(frozen=True, repr=False)
class FinishedRun:
    """A run that has ended: what its caller and its followers see, and what it raised."""

    info: TaskInfo
    messages: list[Any]
    events: list[dict[str, Any]]  # those of docs/protocol.md, as if nothing were coalesced
    exception: BaseException | None  # what `run` raised in the last attempt

    @property
    def status(self) -> str:
        return str(self.info.status)

    @property
    def outputs(self) -> dict[str, Any] | None:
        """In JSON; None if it did not succeed."""
        outputs: dict[str, Any] | None = self.info.outputs
        return outputs

    @property
    def error(self) -> dict[str, str] | None:
        """``{"code", "message"}``; None if it did not fail."""
        error: dict[str, str] | None = self.info.error
        return error

    @property
    def progress(self) -> int | None:
        return self.info.progress

    @property
    def target(self) -> int | None:
        return self.info.target

    @property
    def traceback(self) -> str:
        """Of an unexpected exception; else empty."""
        return self.info.traceback

    def __repr__(self) -> str:
        """A failed assertion shows it, so it says why the run failed."""
        said = f"{self.info.task} {self.status}"
        if self.error is not None:
            said += f": {self.error['code']}: {self.error['message']}"
        if self.exception is not None:
            said += f" ({self.exception!r})"
        return f"<{type(self).__name__} {said}>"


def run_task(task: type[Task], inputs: Mapping[str, Any] | None = None, *, user: Any = None) -> FinishedRun:
    """Execute a run of the task, here and now, whatever the backend is; raises InvalidInputs.

    The task need not be registered. Permissions are not asked. The run is a row of the test's database.
    """
    _check_class(task)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise SynchronousOnlyOperation("run_task() was called on an event loop. Write `await arun_task(…)` there.")
    info = runs.draft(task, {} if inputs is None else inputs, user=user)
    insert(info)  # not `runs.save`: that would queue it as well
    seen = immediate.execute(info.uuid, task, published=False)
    refresh(info)
    return FinishedRun(info, info.messages, [json.loads(event.text) for event in seen.events], seen.exception)


def _check_class(task: object) -> None:
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise TypeError(f"run_task() takes the class of a task, as in run_task(AddUsers, {{…}}); it got {task!r}.")


async def arun_task(task: type[Task], inputs: Mapping[str, Any] | None = None, *, user: Any = None) -> FinishedRun:
    """As `run_task`, for async code: an async task runs on the event loop of the caller."""
    return await sync_to_async(run_task)(task, inputs, user=user)
