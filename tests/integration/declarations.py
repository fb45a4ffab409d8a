"""One task, as several versions of a project declare it."""

from typing import Any

from taskapi.params import DictParameter, IntParameter, StringParameter
from taskapi.tasks import Task


class First(Task):
    name = "versioned"
    inputs = {"a": IntParameter()}
    outputs = {"by": StringParameter(), "given": DictParameter()}

    def run(self, **inputs: Any) -> dict[str, Any]:
        return {"by": type(self).__name__, "given": inputs}


class Optional(First):
    """Has one more input, with a default."""

    inputs = {"a": IntParameter(), "b": IntParameter(default=5)}


class Required(First):
    """Has one more input, which is required."""

    inputs = {"a": IntParameter(), "c": IntParameter()}


class Wider(First):
    """Accepts more values."""

    inputs = {"a": StringParameter()}
