"""For whom values are converted: what a parameter may ask while it converts one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from django.core.files import File

if TYPE_CHECKING:
    from taskapi.models import TaskInfo


class Files(Protocol):
    """Where the files of a conversion are; `taskapi.files` has them."""

    def find(self, reference: str) -> File[Any] | None:
        """The upload of this reference; None if there is none that may be used here."""

    def to_json(self, file: File[Any]) -> dict[str, Any]:
        """The file as it is recorded, in the inputs or in the outputs of a run. Stores it, if it is not stored."""


@dataclass(frozen=True, slots=True)
class ConversionContext:
    """For whom, and for which run, values are converted; a parameter gets it from `current_context()`."""

    user: Any = None  # None for nobody, as in `TaskInfo.user`
    run: TaskInfo | None = None  # None if the inputs of a new run are converted: it is not recorded yet
    build_absolute_uri: Callable[[str], str] = str  # as that of Django's request; without a request the path stays
    files: Files | None = None  # None if nothing is recorded


# A context variable and not an argument. A project's own list type, for example, calls `child.to_python(value)` and
# knows nothing of a context; its child gets it all the same. And it costs nothing for each value.
current: ContextVar[ConversionContext] = ContextVar("taskapi.conversion")

# Whether JSON Schema is made of outputs, and not of inputs: a file differs.
describes_outputs: ContextVar[bool] = ContextVar("taskapi.describes_outputs", default=False)

_NOBODY = ConversionContext()


def current_context() -> ConversionContext:
    """The context of the conversion that is going on; an empty one if there is none."""
    return current.get(_NOBODY)
