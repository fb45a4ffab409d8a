"""Values that hold values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.files import File
from rest_framework.fields import DictField, ListField

from taskapi.params.base import FieldParameter, Parameter
from taskapi.params.values import convert_items, convert_members


class JSONParameter(Parameter):
    """Any JSON value, null too."""

    def __init__(self, required: bool = True, *, allow_null: bool = True, **options: Any) -> None:
        super().__init__(required, allow_null=allow_null, **options)


class _ContainerParameter(FieldParameter):
    """A parameter that holds values of a child parameter; without a child, any JSON.

    The field has the limits and the sentences. The loop over the values is ours, because the field's own loop
    needs another field for the values.
    """

    child: Parameter = JSONParameter()

    def __init__(self, child: Parameter | None = None, required: bool = True, **options: Any) -> None:
        if not isinstance(child, Parameter | None):
            raise TypeError(f"{type(self).__name__} takes a parameter, such as StringParameter(), not {child!r}.")
        super().__init__(required, **options)
        if child is not None:
            self.child = child

    def to_python(self, value: Any) -> Any:
        if value is None:
            return self.field.run_validation(None)
        held = self.held(value)
        values = _convert(self.child.reader(held.values() if isinstance(held, Mapping) else held), held)
        self.field.run_validators(values)
        return values

    def to_json(self, value: Any) -> Any:
        if value is None:
            return self.field.run_validation(None)
        values = self.held(value)
        self.field.run_validators(values)
        return _convert(self.child.to_json, values)

    def held(self, value: Any) -> list[Any] | Mapping[Any, Any]:
        """The values as a list or a mapping, before any of them is looked at."""
        raise NotImplementedError


def _convert(convert: Callable[[Any], Any], values: list[Any] | Mapping[Any, Any]) -> Any:
    return convert_members(convert, values) if isinstance(values, Mapping) else convert_items(convert, values)


class ListParameter(_ContainerParameter):
    """A list, or what Python iterates over (a set, a queryset). Any other value is a list of that one item."""

    field_class = ListField
    constraints = {"min_length": "minItems", "max_length": "maxItems", "allow_empty": None}
    schema = {"type": "array"}

    def held(self, value: Any) -> list[Any]:
        several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping, File))
        items = list(value) if several else [value]
        if not items and not self.field.allow_empty:
            self.field.fail("empty")
        return items

    def type_schema(self) -> dict[str, Any]:
        least = {} if self.field.allow_empty else {"minItems": 1}
        return least | super().type_schema() | {"items": self.child.json_schema()}


class DictParameter(_ContainerParameter):
    """A dict with str keys, or a list."""

    field_class = DictField
    constraints = {"allow_empty": None}
    field_defaults = {
        "error_messages": {"not_a_dict": 'Expected a dictionary or a list but got type "{input_type}".'},
    }
    schema = {"type": ["object", "array"]}

    def held(self, value: Any) -> list[Any] | Mapping[Any, Any]:
        if not isinstance(value, (Mapping, list, tuple)):
            self.field.fail("not_a_dict", input_type=type(value).__name__)
        if not value and not self.field.allow_empty:
            self.field.fail("empty")
        return list(value) if isinstance(value, tuple) else value

    def type_schema(self) -> dict[str, Any]:
        least = {} if self.field.allow_empty else {"minItems": 1, "minProperties": 1}
        child = self.child.json_schema()
        return super().type_schema() | least | {"additionalProperties": child, "items": child}
