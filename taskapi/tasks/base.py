"""The class of all tasks."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import datetime, timedelta
from inspect import cleandoc
from types import EllipsisType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, TypeVar, Unpack

from asgiref.sync import sync_to_async

from taskapi.params import Parameter, object_schema
from taskapi.tasks import doors
from taskapi.tasks.progress import Speaker, Tracked

if TYPE_CHECKING:
    from taskapi.models import TaskInfo

T = TypeVar("T")


class StartOptions(TypedDict, total=False):
    """The keyword arguments of `Task.start` and `Task.start_many`, for functions that pass them on."""

    user: Any
    delay: float | timedelta | None
    run_at: datetime | None
    idempotency_key: str | None


# The speaker of a task whose `run` is called directly, in a test for example: nobody listens to it.
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
    isolation: ClassVar[Literal["process"] | None] = None  # "process": a process for each run, which can be ended
    max_attempts: ClassVar[int] = 3  # executions in all; those that a worker handed back do not count
    retry_on: ClassVar[tuple[type[Exception], ...]] = ()  # exceptions after which it is tried again
    retry_delay: ClassVar[float] = 1.0  # seconds before the second try; doubling
    # How long a finished run is kept: seconds or a timedelta; None: for ever; not set: TASK_API_RETENTION
    retain: ClassVar[float | timedelta | EllipsisType | None] = ...

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
        """Raise Interrupted if the run has to stop."""
        self._speaker.check_interrupted()

    def track(self, iterable: Iterable[T] | AsyncIterable[T], target: float | None = None) -> Tracked[T]:
        """Yield the items, for `for` or `async for`, and advance the progress by one after each.

        The target is `target`, or else the number of items if it is known.
        """
        return Tracked(self._speaker, iterable, target)

    # Starting it

    @classmethod
    def validate(cls, inputs: dict[str, Any], *, user: Any) -> dict[str, Any]:
        """Return the inputs to use; override it to refuse or change what a caller gave.

        Called before each start with the converted inputs, defaults included. `user` is None for nobody. Raise
        ValidationError, Django's or REST framework's, with ``{name: [sentence, …]}`` or with a sentence.
        """
        return inputs

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
        return doors.runs().start(cls, given, user=user, delay=delay, run_at=run_at, idempotency_key=idempotency_key)

    @classmethod
    async def astart(cls, inputs: Mapping[str, Any] | None = None, **options: Unpack[StartOptions]) -> TaskInfo:
        """As `start`, for async code."""
        return await sync_to_async(cls.start)(inputs, **options)

    @classmethod
    def start_many(cls, many: Iterable[Mapping[str, Any]], **options: Unpack[StartOptions]) -> list[TaskInfo]:
        """Start a run for each of these inputs, all or none; the runs in the same order.

        As `start`, whose keywords hold for all of them. InvalidInputs has as its `detail` what is wrong with which
        inputs: ``{index: {name: [sentence, …]}}``. An idempotency key stands for the whole list.
        """
        return doors.runs().start_many(cls, many, **options)

    @classmethod
    async def astart_many(cls, many: Iterable[Mapping[str, Any]], **options: Unpack[StartOptions]) -> list[TaskInfo]:
        """As `start_many`, for async code."""
        return await sync_to_async(cls.start_many)(many, **options)

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
