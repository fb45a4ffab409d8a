"""What every parameter is and does; the types themselves are in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from django.utils.functional import Promise
from rest_framework.fields import Field, empty

from taskapi.params.values import json_value, null_refused


class Parameter:
    """The type of one input or output. Bare, it takes any JSON value but null.

    A type of one's own is a subclass with `to_python` and `to_json`; each raises ValidationError (Django's or
    REST framework's) to say in words what is wrong. It may describe itself by `json_schema`, and ask by
    `current_context()` for whom it converts.

    `default` is the value of an input that is left out, or a function that gives the value; with a default, an input
    is not required. A parameter serves every run of its task in every thread, so its attributes can be set
    once: in the constructor.
    """

    required: bool = True
    help_text: str | Promise = ""
    default: Any = empty
    allow_null: bool = False

    def __init__(
        self,
        required: bool = True,
        *,
        help_text: str | Promise = "",
        default: Any = empty,
        allow_null: bool = False,
    ) -> None:
        self.required = required and default is empty
        self.help_text = help_text
        self.default = default
        self.allow_null = allow_null

    def to_python(self, value: Any) -> Any:
        """JSON to Python. Takes a Python value too, since Task.start() is given those."""
        if value is None and not self.allow_null:
            raise null_refused()
        return json_value(value)

    def reader(self, values: Iterable[Any]) -> Callable[[Any], Any]:
        """What converts each of these values, as `to_python` does: a type that reads them all at once overrides it."""
        return self.to_python

    def to_json(self, value: Any) -> Any:
        """Python to JSON, in the one form that a value has; raises ValidationError for the wrong type."""
        return Parameter.to_python(self, value)  # not the subclass's: this checks JSON, and converts nothing

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the JSON that `to_json` gives."""
        schema: dict[str, Any] = {}
        if self.help_text:
            schema["description"] = str(self.help_text)
        if self.default is not empty and self.default is not None and not callable(self.default):
            schema["default"] = self.to_json(self.default)
        return schema

    def get_default(self) -> Any:
        """The default as a Python value, a new one at each call, so that a run may change its list."""
        value = self.default() if callable(self.default) else self.default
        return None if value is None else self.to_python(self.to_json(value))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            raise AttributeError(f"{self!r} cannot be changed; `{name}` is set already.")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} cannot be changed.")

    def _told(self) -> dict[str, Any]:
        """What the constructor was told."""
        return {name: value for name, value in vars(self).items() if name != "field"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameter) and type(other) is type(self) and other._told() == self._told()

    def __hash__(self) -> int:
        return hash((type(self), self.required))

    def __repr__(self) -> str:
        usual = type(self)
        told = (f"{name}={value!r}" for name, value in self._told().items() if value != getattr(usual, name, empty))
        return f"{usual.__name__}({', '.join(told)})"


class FieldParameter(Parameter):
    """A parameter whose rules are those of a REST framework serializer field, made once.

    Besides the arguments of each parameter it takes `validators`, `error_messages` and the field's constraints.
    """

    field_class: ClassVar[type[Field[Any, Any, Any, Any]]]
    constraints: ClassVar[Mapping[str, str | None]] = {}  # keyword of the field: word of JSON Schema, if any
    field_defaults: ClassVar[Mapping[str, Any]] = {}  # where we differ from the field
    schema: ClassVar[Mapping[str, Any]] = {}  # JSON Schema of the type, without the constraints

    # The types that the field is given; bool only if it is named. Most fields of REST framework begin with
    # str(value), and that raises for a deep list or a long int.
    takes: ClassVar[tuple[type, ...]] = (str,)

    def __init__(
        self,
        required: bool = True,
        *,
        help_text: str | Promise = "",
        default: Any = empty,
        allow_null: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(required, help_text=help_text, default=default, allow_null=allow_null)
        for name in options:
            if name not in self.constraints and name not in ("validators", "error_messages"):
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
        vars(self).update(options)
        self.field: Any = self.field_class(allow_null=allow_null, **{**self.field_defaults, **options})

    def to_python(self, value: Any) -> Any:
        fits = isinstance(value, self.takes) and (bool in self.takes or not isinstance(value, bool))
        if not fits and value is not None:
            self.field.fail("invalid")
        return self.field.run_validation(value)

    def to_json(self, value: Any) -> Any:
        value = self.to_python(value)
        return None if value is None else self.field.to_representation(value)

    def json_schema(self) -> dict[str, Any]:
        schema = self.type_schema()
        return (nullable(schema) if self.allow_null else schema) | super().json_schema()

    def type_schema(self) -> dict[str, Any]:
        """The JSON Schema of the type and its constraints."""
        limits = {word: getattr(self.field, name) for name, word in self.constraints.items() if word}
        return dict(self.schema) | {word: limit for word, limit in limits.items() if limit is not None}


def with_children(parameter: Parameter) -> Iterator[Parameter]:
    """The parameter, and what it holds: the items of a list."""
    yield parameter
    child = getattr(parameter, "child", None)
    if isinstance(child, Parameter):
        yield from with_children(child)


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema that takes what this one takes, and null."""
    if "type" not in schema and "enum" not in schema:
        return {"anyOf": [schema, {"type": "null"}]} if schema else {}
    wider = dict(schema)
    if "type" in schema:
        types = schema["type"]
        wider["type"] = [*([types] if isinstance(types, str) else types), "null"]
    if "enum" in schema:
        wider["enum"] = [*schema["enum"], None]
    return wider
