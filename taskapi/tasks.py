"""What a developer writes: a Task class. It can be imported while Django reads its settings."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from datetime import datetime, timedelta
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from asgiref.sync import sync_to_async

from taskapi.doors import doors
from taskapi.params import Parameter, object_schema
from taskapi.progress import Speaker

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

__all__ = ["Task"]

T = TypeVar("T")


# Who listens to a task whose `run` is called directly, in a test for example.
_nobody: Speaker = Speaker(None, None, wake=lambda: _nobody.collect())  # noqa: PLW0108 - it is not there yet


class Task:
    """A piece of work with typed inputs and outputs; subclass it and write `run`.

    Listed in TASK_API_BACKGROUND_TASKS, it can be started by its name over WebSocket and REST; from Python,
    `start` starts it.
    """

    name: ClassVar[str] = ""  # by which clients call it
    inputs: ClassVar[Mapping[str, Parameter]] = {}
    outputs: ClassVar[Mapping[str, Parameter]] = {}

    permission_classes: ClassVar[Iterable[Any]] = ()  # DRF's, added to those of the project
    throttle_classes: ClassVar[Iterable[Any]] = ()  # DRF's, added to those of the project
    queue: ClassVar[str] = "default"
    timeout: ClassVar[float | None] = None  # seconds
    max_attempts: ClassVar[int] = 3  # executions in all, whatever ended the earlier ones
    retry_on: ClassVar[tuple[type[Exception], ...]] = ()  # exceptions after which it is tried again
    retry_delay: ClassVar[float] = 1.0  # seconds before the second try; doubling
    retain: ClassVar[float | timedelta | None]  # how long a finished run is kept; absent: TASK_API_RETENTION

    info: TaskInfo  #: the run, inside `run`

    _speaker = _nobody

    # The work

    run: Any  # `def run(self, **inputs)` or `async def run(self, **inputs)`

    def set_target(self, target: float | None) -> None:
        """Say how far progress will go."""
        self._speaker.set_target(target)

    def set_progress(self, progress: float) -> None:
        """Say how far the work has come. What followers see never goes backwards within an attempt."""
        self._speaker.set_progress(progress)

    def inc_progress(self, n: float = 1) -> None:
        """Advance the progress by `n`."""
        self._speaker.inc_progress(n)

    def add_message(self, message: Any) -> None:
        """Tell the followers something, in JSON values; each message arrives, once and in order.

        Raises TypeError or ValueError for what is not JSON.
        """
        self._speaker.add_message(message)

    def check_cancelled(self) -> None:
        """Raise Interrupted where the run has to stop."""
        self._speaker.check_interrupted()

    @overload
    def track(self, iterable: Iterable[T], target: float | None = None) -> Iterator[T]: ...
    @overload
    def track(self, iterable: AsyncIterable[T], target: float | None = None) -> AsyncIterator[T]: ...
    def track(
        self, iterable: Iterable[T] | AsyncIterable[T], target: float | None = None
    ) -> Iterator[T] | AsyncIterator[T]:
        """Yield the items and advance the progress by one after each.

        The target is `target`, or else the iterable's length where it has one.
        """
        if target is None and isinstance(iterable, Sized):
            target = len(iterable)
        if target is not None:
            self.set_target(target)
        return self._atrack(iterable) if isinstance(iterable, AsyncIterable) else self._track(iterable)

    def _track(self, iterable: Iterable[T]) -> Iterator[T]:
        for item in iterable:
            yield item
            self._speaker.inc_progress()

    async def _atrack(self, iterable: AsyncIterable[T]) -> AsyncIterator[T]:
        async for item in iterable:
            yield item
            self._speaker.inc_progress()

    # Starting it

    @classmethod
    def start(
        cls,
        inputs: Mapping[str, Any] | None = None,
        *,
        user: Any = None,
        delay: float | timedelta | None = None,
        run_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> TaskInfo:
        """Start a run: on commit, inside `transaction.atomic()`, and not at all after a rollback.

        `delay` is in seconds. Raises InvalidInputs (`detail`: ``{name: [sentence, …]}``), which leaves no
        row, and IdempotencyConflict.
        """
        given = {} if inputs is None else inputs
        return doors.runs.start(cls, given, user=user, delay=delay, run_at=run_at, idempotency_key=idempotency_key)

    @classmethod
    async def astart(cls, inputs: Mapping[str, Any] | None = None, **options: Any) -> TaskInfo:
        """As `start`, for async code."""
        return await sync_to_async(cls.start)(inputs, **options)

    # Describing it

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """The task as JSON: its name, its docstring, and its inputs and outputs as JSON Schema."""
        return {
            "name": cls.name,
            "description": cleandoc(cls.__doc__ or ""),
            "inputs": object_schema(cls.inputs),
            "outputs": object_schema(cls.outputs, optional_null=True),
        }
