"""One of a few values."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from rest_framework.fields import BooleanField, ChoiceField

from taskapi.params.base import FieldParameter
from taskapi.params.values import checked_number, checked_text, echo


class _Boolean(BooleanField):
    TRUE_VALUES = {"true", "1", 1}
    FALSE_VALUES = {"false", "0", 0}


class BooleanParameter(FieldParameter):
    """True or False; also 1 and 0, and the words in any case."""

    field_class = _Boolean
    schema = {"type": "boolean"}
    takes = (bool, int, float, str)


class _Choice(ChoiceField):
    """ChoiceField that checks the type of a value before it makes a string of it."""

    def to_internal_value(self, data: Any) -> Any:
        value = data.value if isinstance(data, Enum) else data
        if isinstance(value, str):
            checked_text(value)
        elif isinstance(value, (int, float)):
            checked_number(value)
        else:
            self.fail("invalid_choice", input=type(value).__name__)
        if value == "" and self.allow_blank:
            return value
        if str(value) not in self.choice_strings_to_values:
            self.fail("invalid_choice", input=echo(value))
        return self.choice_strings_to_values[str(value)]

    def to_representation(self, value: Any) -> Any:
        return value.value if isinstance(value, Enum) else value


class ChoiceParameter(FieldParameter):
    """One of the choices: values, (value, label) pairs, or an Enum, of which `run` gets the member."""

    field_class = _Choice
    constraints = {"choices": None, "allow_blank": None}
    takes = (object, bool)  # the field looks at it

    def __init__(self, choices: Iterable[Any], required: bool = True, **options: Any) -> None:
        super().__init__(required, choices=list(choices), **options)
        for value in self.field.choices:
            if not isinstance(self.field.to_representation(value), (str, int, float)):
                raise TypeError(f"A choice is a string or a number in JSON, not {value!r}.")

    def type_schema(self) -> dict[str, Any]:
        values = [self.field.to_representation(value) for value in self.field.choices]
        return {"enum": [*values, ""] if self.field.allow_blank else values}
