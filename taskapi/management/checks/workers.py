"""Whether somebody works for the queues of the project: asked by `check --deploy` only, as it needs the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from taskapi.backends import Backend, QueueUnavailable, get_backend
from taskapi.backends.attendance import command
from taskapi.tasks.registry import tasks


def check_workers(**kwargs: Any) -> list[CheckMessage]:
    """Each queue of the project's tasks is taken by a worker now."""
    try:
        backend = get_backend()
        queues = sorted({task.queue for task in tasks().values()})
    except Exception:  # noqa: BLE001 - the checks of the settings and of the tasks say what is wrong
        return []
    return list(_look(backend, queues))


def _look(backend: Backend, queues: list[str]) -> Iterator[CheckMessage]:
    for queue in queues:
        try:
            answer = backend.has_worker(queue)
        except QueueUnavailable as error:
            yield checks.Warning(
                f"Whether workers take the queues {', '.join(map(repr, queues))} could not be found out: {error}.",
                hint="Run this check where the queue can be reached.",
                id="taskapi.W014",
            )
            return
        if answer is False:
            yield checks.Warning(
                f"No worker takes the queue {queue!r} now: its runs wait until one does.",
                hint=f"Start one: {command(queue)}",
                id="taskapi.W014",
            )
