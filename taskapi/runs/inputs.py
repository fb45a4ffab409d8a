"""The inputs that a run is recorded with: converted, and approved by the task's own `validate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework.exceptions import ValidationError
from rest_framework.fields import empty

from taskapi.exceptions import InvalidInputs
from taskapi.files import GivenFiles
from taskapi.params import ConversionContext, dump_values, errors_by_name, is_given, parse_inputs
from taskapi.params.context import current
from taskapi.protocol import encode
from taskapi.tasks import Task

_TAKES_ALL = vars(Task)["validate"].__func__


class GivenInputs:
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

        It has no defaults that are another each time, and nothing that `validate` makes of the inputs. Of a file, it
        has what is in the file: one that is sent again has another reference.
        """
        files, values = self._context.files, self._json
        if isinstance(files, GivenFiles) and files.are_any:
            values = dump_values(self._task.inputs, self._values, files.by_content(self._context))
        return {
            name: value
            for name, value in values.items()
            if name in self._given or not callable(self._task.inputs[name].default)
        }

    def to_record(self, *, unchanged: bool = False) -> dict[str, Any]:
        """The JSON that is recorded: each value has one form. Raises InvalidInputs if `validate` refuses the inputs.

        Defaults that are the same each time are left out: the worker adds them, from the task as it is declared there.
        Another version of the task may not have an input that was not given. `unchanged`: `validate` may refuse the
        inputs, but what it makes of them is not used.
        """
        given = {name: value for name, value in self._json.items() if self._is_fixed(name)}
        if getattr(self._task.validate, "__func__", None) is _TAKES_ALL:
            return given
        values = self._validate()
        if unchanged:
            return given
        made = {name: value for name, value in given.items() if name not in self._given}  # by a default
        return made | {
            name: value
            for name, value in self._dump(values).items()
            if is_given(self._task.inputs[name], value) and (name in given or self._is_changed(name, value))
        }

    def _is_fixed(self, name: str) -> bool:
        """Whether the value is this run's own. A default that is the same each time is not: the worker knows it."""
        parameter = self._task.inputs[name]
        return callable(parameter.default) or is_given(parameter, self._given.get(name, empty))

    def _is_changed(self, name: str, value: Any) -> bool:
        return name not in self._json or encode(value) != encode(self._json[name])

    def _validate(self) -> Mapping[str, Any]:
        """What `validate` returns. Parameters that it uses itself convert for the same user."""
        task = self._task
        before = current.set(self._context)
        try:
            values = task.validate(self._values, user=self._context.user)
        except (ValidationError, DjangoValidationError) as error:
            raise InvalidInputs(errors_by_name(error)) from None
        finally:
            current.reset(before)
        _check_returned(task, values)
        return values

    def _dump(self, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dump_values(self._task.inputs, values, self._context)
        except ValidationError as error:
            raise InvalidInputs(error.detail) from None


def _check_returned(task: type[Task], values: Any) -> None:
    """TypeError, and not InvalidInputs: this is a mistake of the task's author, and not of the caller."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{task.__qualname__}.validate() has to return the inputs to use, as a dict; it returned {values!r}. "
            "Does it end with `return inputs`?"
        )
    unknown = ", ".join(repr(name) for name in values if name not in task.inputs)
    if unknown:
        raise TypeError(
            f"{task.__qualname__}.validate() returned {unknown}, which the `inputs` of the task do not name. "
            "Declare it there, or leave it out."
        )
