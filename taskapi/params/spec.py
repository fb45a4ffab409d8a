"""A task's inputs, or its outputs, as a whole: names, and the parameter of each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import SkipField, empty

from taskapi.params.base import Parameter, nullable
from taskapi.params.context import ConversionContext, current, describes_outputs
from taskapi.params.values import MAX_SENTENCES, UNFIT, echo, exact, json_value, null_refused, sentences

Spec = Mapping[str, Parameter]


def parse_inputs(spec: Spec, data: Any, context: ConversionContext | None = None) -> dict[str, Any]:
    """The inputs of a call as Python values, in the order of the spec, with the defaults of those left out.

    An input that is left out and has no default stays out. Null leaves an input out, too, if it is neither required
    nor has allow_null. Raises ValidationError with all that is wrong: ``{name: [sentence, …]}``, or a list of
    sentences if `data` is no mapping.
    """
    return _convert(spec, data, _parse, "input", context)


def dump_values(spec: Spec, values: Any, context: ConversionContext | None = None) -> dict[str, Any]:
    """Inputs or outputs as JSON, in the order of the spec; None is null, which a required value may not be.

    Raises ValidationError as `parse_inputs` does.
    """
    return _convert(spec, values, _dump, "name", context)


def dump_outputs(spec: Spec, values: Any, context: ConversionContext | None = None) -> dict[str, Any]:
    """Outputs as JSON, as `dump_values` makes it; integers that JavaScript would read as others are refused."""
    return _convert(spec, values, _dump_exactly, "name", context)


def misfit(spec: Spec, names: Iterable[str]) -> str:
    """Why inputs of these names do not fit, in a sentence; "" if they fit. Their values are not looked at."""
    given = set(names)
    unknown = [name for name in given if name not in spec]
    missing = [name for name, parameter in spec.items() if parameter.required and name not in given]
    if not unknown and not missing:
        return ""
    problems = [("it has no input", unknown), ("it needs the input", missing)]
    return "; ".join(f"{what} {', '.join(map(repr, sorted(which)))}" for what, which in problems if which)


def object_schema(spec: Spec, *, optional_null: bool = False) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the object; `optional_null`: what is not required may be null, as in outputs."""
    before = describes_outputs.set(optional_null)
    try:
        properties = {name: _property_schema(parameter, optional_null) for name, parameter in spec.items()}
    finally:
        describes_outputs.reset(before)
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, parameter in spec.items() if parameter.required],
        "additionalProperties": False,
    }


def _property_schema(parameter: Parameter, optional_null: bool) -> dict[str, Any]:
    schema = parameter.json_schema()
    return nullable(schema) if optional_null and not parameter.required and not parameter.allow_null else schema


def is_given(parameter: Parameter, value: Any) -> bool:
    """Whether an input was given. Null leaves an input out, if it may be left out and null is no value of it."""
    return value is not empty and (value is not None or parameter.required or parameter.allow_null)


def _parse(parameter: Parameter, value: Any) -> Any:
    if not is_given(parameter, value):
        value = empty
        if parameter.default is not empty:
            return parameter.get_default()
    return None if _is_null(parameter, value) else parameter.to_python(value)


def _dump(parameter: Parameter, value: Any) -> Any:
    if value is None and not parameter.required:
        return None
    # A parameter of the project's own may return anything.
    return None if _is_null(parameter, value) else json_value(parameter.to_json(value))


def _dump_exactly(parameter: Parameter, value: Any) -> Any:
    return exact(_dump(parameter, value))


def _is_null(parameter: Parameter, value: Any) -> bool:
    """Whether the value is null, and may be null. Raises SkipField if it is absent, and may be absent."""
    if value is empty and parameter.required:
        raise ValidationError(_("This field is required."), code="required")
    if value is empty:
        raise SkipField
    if value is None and not parameter.allow_null:
        raise null_refused()
    return value is None


def _convert(
    spec: Spec,
    values: Any,
    convert: Callable[[Parameter, Any], Any],
    noun: str,
    context: ConversionContext | None,
) -> dict[str, Any]:
    if context is None:  # a conversion inside another one keeps the context of that one
        return _convert_each(spec, values, convert, noun)
    before = current.set(context)
    try:
        return _convert_each(spec, values, convert, noun)
    finally:
        current.reset(before)


def _convert_each(spec: Spec, values: Any, convert: Callable[[Parameter, Any], Any], noun: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValidationError(f"Expected an object with the names: {_names(spec)}. Got {type(values).__name__}.")
    converted: dict[str, Any] = {}
    unknown = [name for name in values if name not in spec]
    # These come first: a typing error in a name explains why the right one is missing, too.
    errors = {echo(name): [_unknown(spec, name, noun)] for name in unknown[:MAX_SENTENCES]}
    for name, parameter in spec.items():
        try:
            converted[name] = convert(parameter, values.get(name, empty))
        except SkipField:
            pass
        except UNFIT as error:
            errors[name] = sentences(error)
    if errors:
        raise ValidationError(errors)
    return converted


def _unknown(spec: Spec, name: Any, noun: str) -> ErrorDetail:
    """That the spec has no such name, with the one that was meant, if it is likely."""
    said = echo(name)
    close = difflib.get_close_matches(said, spec, 1)
    remedy = f"Did you mean {close[0]!r}?" if close else f"Expected: {_names(spec)}."
    return ErrorDetail(f"Unknown {noun} '{said}'. {remedy}", "unknown")


def _names(spec: Spec) -> str:
    return ", ".join(spec) or "none"
