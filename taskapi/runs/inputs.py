"""The inputs that a run is recorded with."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty

from taskapi.exceptions import InvalidInputs
from taskapi.params import ConversionContext, dump_values, is_given, parse_inputs
from taskapi.tasks import Task

class Inputs:
    """What a caller gave for a new run of the task. Raises InvalidInputs if the parameters refuse it."""

    def __init__(self, task: type[Task], given: Any, context: ConversionContext) -> None:
        self._task = task
        self._given = given
        self._context = context
        try:
            self._values = parse_inputs(task.inputs, given, context)
            self._json = dump_values(task.inputs, self._values, context)
        except ValidationError as error:
            raise InvalidInputs(error.detail) from None

    def identity(self) -> dict[str, Any]:
        """The JSON by which an idempotency key tells one start from another.

        Without defaults that are another each time.
        """
        return {
            name: value
            for name, value in self._json.items()
            if name in self._given or not callable(self._task.inputs[name].default)
        }

    def to_record(self) -> dict[str, Any]:
        """The JSON that is recorded: each value has one form.

        Defaults that are the same each time are left out: the worker adds them, from the task as it is declared there.
        Another version of the task may not have an input that was not given.
        """
        return {name: value for name, value in self._json.items() if self._is_fixed(name)}

    def _is_fixed(self, name: str) -> bool:
        """Whether the value is this run's own, and no default that the worker knows as well."""
        parameter = self._task.inputs[name]
        return callable(parameter.default) or is_given(parameter, self._given.get(name, empty))
