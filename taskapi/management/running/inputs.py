"""The inputs of a run, from the words of a command line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.core.files import File

from taskapi.params import DictParameter, FieldParameter, FileParameter, ListParameter, Parameter

FILE = "@"  # the first character of a value that names a file


class Unreadable(Exception):
    """The words cannot be read; the text says what was expected."""


def read_inputs(spec: Mapping[str, Parameter] | None, pairs: Sequence[str], text: str | None) -> dict[str, Any]:
    """The inputs of ``NAME=VALUE`` pairs, and of a JSON object; a pair goes before what the object says.

    `spec` has the parameters of the task, or is None if it is not known here: then the server converts.
    """
    inputs = {} if text is None else _read_object(text)
    given: defaultdict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (name and separator):
            raise Unreadable(f"--input takes NAME=VALUE, such as --input seconds=5; it was given {pair!r}.")
        given[name].append(value)
    for name, values in given.items():
        # Of a name that the task does not have, the task itself says so.
        inputs[name] = _guess(values) if spec is None or name not in spec else _read(name, spec[name], values)
    return inputs


def open_files(inputs: dict[str, Any], spec: Mapping[str, Parameter], opened: ExitStack) -> dict[str, Any]:
    """The inputs, with a file for each ``@PATH`` that is given for one; `opened` closes them."""
    return {name: _open(value, spec[name], opened) if name in spec else value for name, value in inputs.items()}


def names_files(inputs: Mapping[str, Any], spec: Mapping[str, Parameter]) -> bool:
    """Whether an input is given as the path of a file."""
    return any(
        _is_path(item) for name, value in inputs.items() if _takes_files(spec.get(name)) for item in _each(value)
    )


def _open(value: Any, parameter: Parameter, opened: ExitStack) -> Any:
    if not _takes_files(parameter):
        return value
    if isinstance(value, list):
        return [_open(item, parameter, opened) for item in value]
    if not _is_path(value):
        return value
    path = Path(value.removeprefix(FILE))
    try:
        return File(opened.enter_context(path.open("rb")), path.name)
    except (OSError, ValueError) as error:
        raise Unreadable(f"The file {str(path)!r} cannot be read: {error}") from None


def _takes_files(parameter: Parameter | None) -> bool:
    return isinstance(getattr(parameter, "child", parameter), FileParameter)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(FILE)


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"--json takes the inputs as a JSON object, such as '{{\"n\": 5}}'. {error}.") from None
    if not isinstance(value, dict):
        raise Unreadable(f"--json takes the inputs as a JSON object, such as '{{\"n\": 5}}'; it was given {text}")
    return value


def _read(name: str, parameter: Parameter, values: list[str]) -> Any:
    if isinstance(parameter, ListParameter):
        return _read_list(parameter, values)
    if len(values) > 1:
        raise Unreadable(f"--input {name}=… was given {len(values)} times; only an input that is a list takes several.")
    return _read_json(values[0]) if _takes_json(parameter) else values[0]


def _read_list(parameter: ListParameter, values: list[str]) -> list[Any]:
    """The values as its items. A single value may be the whole list, in JSON."""
    if len(values) == 1:
        whole = _read_json(values[0])
        if isinstance(whole, list):
            return whole
    return [_read_json(value) if _takes_json(parameter.child) else value for value in values]


def _takes_json(parameter: Parameter) -> bool:
    """Whether a word means a value of another type than a string, which the parameter would not make of it."""
    if isinstance(parameter, (ListParameter, DictParameter)):
        return True
    return not isinstance(parameter, FieldParameter) and parameter.json_schema().get("type") != "string"


def _guess(values: list[str]) -> Any:
    """The value for a parameter that is not known: a server makes numbers and the like of a string."""
    guessed = [_read_json(value) if value[:1] in ("{", "[") else value for value in values]
    return guessed[0] if len(guessed) == 1 else guessed


def _read_json(word: str) -> Any:
    """What the word means as JSON, or the word itself if it is none."""
    try:
        return json.loads(word)
    except ValueError:
        return word
