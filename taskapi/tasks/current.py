"""Which run calls: known to the code that a worker calls for a run, and to all that this code calls."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class CurrentRun(Protocol):
    """What the worker that executes a run gives to the code of that run; see taskapi.workers.contexts."""

    def waiting_for(self, info: Any) -> AbstractContextManager[Callable[[], object]]: ...


current_run: contextvars.ContextVar[CurrentRun | None] = contextvars.ContextVar("taskapi.run", default=None)


@contextmanager
def waiting_for(info: Any) -> Iterator[Callable[[], object]]:
    """Inside, the run that calls this waits for `info`; if no run calls, nothing waits.

    Yields a function: call it each time that `info` has been looked at and has not ended.
    """
    run = current_run.get()
    if run is None:
        yield lambda: None
    else:
        with run.waiting_for(info) as still_waits:
            yield still_waits
