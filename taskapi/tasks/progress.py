"""What a running attempt says: calls that store and return, for an executor that collects.

The calls have to be fast: a task may report each of ten million items. So a call writes an attribute, and only the
first call since the last collection wakes the event loop.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Any, Generic, NamedTuple, TypeVar

from django.core.serializers.json import DjangoJSONEncoder

from taskapi.exceptions import Interrupted
from taskapi.protocol import MAX_DEPTH, SAFE_INTEGER, is_too_deep

T = TypeVar("T")


class ProgressUpdate(NamedTuple):
    """What an attempt has said since the last collection: the latest numbers, and each message."""

    target: int | None
    progress: int | None
    messages: list[Any]


class Speaker:
    """The task's side and the executor's side of one attempt's progress.

    No lock: CPython may switch threads between two of the statements here, but not within
    ``speaker.progress += n``. The order of the statements does the rest (see `collect`).
    """

    __slots__ = ("_interrupted", "_messages", "_wake", "pending", "progress", "target")

    def __init__(self, target: int | None, progress: int | None, wake: Callable[[], object]) -> None:
        self.target = target
        self.progress = progress
        self.pending = False  # something was said that was not collected yet
        self._messages: deque[Any] = deque()
        self._wake = wake  # called from the task's thread
        self._interrupted = False

    def set_target(self, target: float | None) -> None:
        self.target = None if target is None else _integer(target)
        if not self.pending:
            self.changed()

    def set_progress(self, progress: float) -> None:
        self.progress = progress if type(progress) is int else _integer(progress)
        if not self.pending:
            self.changed()

    def inc_progress(self, n: float = 1) -> None:
        if type(n) is not int:
            n = _integer(n)
        self.progress = (self.progress or 0) + n
        if not self.pending:
            self.changed()

    def add_message(self, message: Any) -> None:
        self._messages.append(_json(message))
        if not self.pending:
            self.changed()

    def repeat(self, update: ProgressUpdate) -> None:
        """Say what another speaker has said. It raises no Interrupted: that speaker's task is interrupted by itself."""
        self.target, self.progress = update.target, update.progress
        self._messages.extend(update.messages)
        self.pending = True
        self._wake()

    def check_interrupted(self) -> None:
        """Raise Interrupted if the attempt has to stop: once, so that the task can say something as it cleans up."""
        if self._interrupted:
            self._interrupted = False
            raise Interrupted

    def changed(self) -> None:
        """Ask to be collected. The calls above do it once for each collection."""
        self.check_interrupted()
        self.pending = True
        self._wake()

    def interrupt(self) -> None:
        """Make the task's next call raise Interrupted. For sync tasks: an async one is cancelled."""
        self._interrupted = True
        self.pending = False

    def release(self) -> None:
        """Wake nobody any more. What it wakes keeps this alive, and this it: only a search for garbage frees both."""
        self._wake = _nobody

    def collect(self) -> ProgressUpdate:
        """What was said since the last collection.

        `pending` becomes false before anything is read here, and true after a call has written. So what is said
        during a collection is in it, or asks for the next one.
        """
        self.pending = False
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        return ProgressUpdate(_bounded(self.target), _bounded(self.progress), messages)


def _nobody() -> None:
    """In place of what a call wakes."""


_TOO_DEEP = f"A message may have lists and dicts inside one another {MAX_DEPTH} deep at most."
_encoder = DjangoJSONEncoder(allow_nan=False)


def _json(message: Any) -> Any:
    """The message as JSON, made now: what cannot be sent fails in the task's line, and later changes do not count."""
    try:
        value = json.loads(_encoder.encode(message))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def _integer(value: Any) -> int:
    """A number without its fraction, as in 1.x; TypeError if it is no number."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"expected a number, got {value!r}")
    return int(value)


def _bounded(value: int | None) -> int | None:
    return None if value is None else max(-SAFE_INTEGER, min(value, SAFE_INTEGER))


class Tracked(Generic[T]):
    """The items of an iterable, for `for` and for `async for`; each advances the progress when the next is asked for.

    Without a target, the number of items is the target, if it can be known. It is asked for when the loop begins,
    because a queryset answers with a query.
    """

    def __init__(self, speaker: Speaker, items: Iterable[T] | AsyncIterable[T], target: float | None) -> None:
        self._speaker = speaker
        self._items: Any = items
        self._target = target

    def __iter__(self) -> Iterator[T]:
        if self._target is None and isinstance(self._items, Sized):
            self._target = len(self._items)
        self._begin()
        for item in self._items:
            yield item
            self._speaker.inc_progress()

    async def __aiter__(self) -> AsyncIterator[T]:
        if self._target is None:
            if hasattr(self._items, "acount"):  # a queryset: `len` would query on the event loop
                self._target = await self._items.acount()
            elif isinstance(self._items, Sized):
                self._target = len(self._items)
        self._begin()
        if isinstance(self._items, AsyncIterable):
            async for item in self._items:
                yield item
                self._speaker.inc_progress()
        else:
            for item in self._items:
                yield item
                self._speaker.inc_progress()

    def _begin(self) -> None:
        if self._target is not None:
            self._speaker.set_target(self._target)
