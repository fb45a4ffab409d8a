"""What a running attempt says: calls that store and return, for an executor that collects.

The one thing here that has to be fast is the call: a task may report each of ten million items. So a call
writes an attribute, and only the first one since the last collection wakes the event loop.
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


class Said(NamedTuple):
    """What an attempt has said since the last collection: the latest numbers, and each message."""

    target: int | None
    progress: int | None
    messages: list[Any]


class Speaker:
    """The task's side and the executor's side of one attempt's progress.

    No lock: CPython switches threads between two of the statements here but not within
    ``speaker.progress += n``, and the order of statements makes up for the rest (see `collect`).
    """

    __slots__ = ("_interrupted", "_messages", "_wake", "pending", "progress", "target")

    def __init__(self, target: int | None, progress: int | None, wake: Callable[[], object]) -> None:
        self.target = target
        self.progress = progress
        self.pending = False  # something was said that nobody has collected
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

    def repeat(self, said: Said) -> None:
        """Say what another speaker has said; whether that one is interrupted is its own matter."""
        self.target, self.progress = said.target, said.progress
        self._messages.extend(said.messages)
        self.pending = True
        self._wake()

    def check_interrupted(self) -> None:
        """Raise Interrupted where the attempt has to stop: once, so that the task can say something as it cleans up."""
        if self._interrupted:
            self._interrupted = False
            raise Interrupted

    def changed(self) -> None:
        """Ask to be collected; in the calls above only when nobody was asked yet."""
        self.check_interrupted()
        self.pending = True
        self._wake()

    def interrupt(self) -> None:
        """Make the task's next call raise Interrupted. For sync tasks: an async one is cancelled."""
        self._interrupted = True
        self.pending = False

    def collect(self) -> Said:
        """What was said since the last collection.

        `pending` falls before anything is read, and a call raises it after it has written: what is said
        during a collection is in it, or wakes the next one.
        """
        self.pending = False
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        return Said(_bounded(self.target), _bounded(self.progress), messages)


_TOO_DEEP = f"A message may have lists and dicts inside one another {MAX_DEPTH} deep at most."
_encoder = DjangoJSONEncoder(allow_nan=False)


def _json(message: Any) -> Any:
    """The message as JSON: what cannot be sent fails in the task's own line, and what changes later stays as said."""
    try:
        value = json.loads(_encoder.encode(message))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def _integer(value: Any) -> int:
    """A number without its fraction, as in 1.x; TypeError for what is no number."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"expected a number, got {value!r}")
    return int(value)


def _bounded(value: int | None) -> int | None:
    return None if value is None else max(-SAFE_INTEGER, min(value, SAFE_INTEGER))


class Tracked(Generic[T]):
    """The items of an iterable, for `for` and for `async for`; each advances the progress when the next is asked for.

    The target, where none is given, is the number of items where it can be known: asked for when the loop
    begins, because a queryset answers with a query.
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
