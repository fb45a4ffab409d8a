"""The schemas of the tasks: inputs and outputs of each, and what starts a run of one of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import quote

from django.utils.translation import get_language

from taskapi.protocol import MANY_LENGTH
from taskapi.schemas.frames import TASK_NAME, name_of, run_frame
from taskapi.schemas.names import key_of
from taskapi.schemas.parts import OBJECT, Schema, record, ref
from taskapi.tasks import Task, describing


class Described(NamedTuple):
    """What the documents say of one task."""

    name: str
    description: str
    inputs: Schema
    outputs: Schema

    @property
    def key(self) -> str:
        return key_of(self.name)

    @property
    def needs_inputs(self) -> bool:
        return bool(self.inputs.get("required"))


def described(task: type[Task]) -> Described:
    """What the task says of itself. Where it cannot (a parameter of the project's own may raise), any object fits."""
    key: Any = task  # mypy asks the instances of Task whether they can be keys of a cache
    return _described(key, get_language())


@lru_cache(maxsize=1024)  # a project's document asks once for each call
def _described(task: type[Task], _language: str | None) -> Described:
    said, key = describing.described(task), key_of(task.name)
    inputs, outputs = (_in_place(said[side], f"{key}{side.capitalize()}") for side in ("inputs", "outputs"))
    return Described(task.name, said["description"], inputs or OBJECT, outputs or OBJECT)


def definitions(tasks: Iterable[Described]) -> dict[str, Schema]:
    """The schemas of these tasks, and of what starts a run of one of them."""
    known = sorted(tasks, key=lambda task: task.name)
    found: dict[str, Schema] = {}
    for task in known:
        found[f"{task.key}Inputs"] = task.inputs
        found[f"{task.key}Outputs"] = task.outputs
        found[f"{task.key}Start"] = _start(task)
        found[f"{task.key}StartMany"] = _start_many(task)
    found["TaskStart"] = _choice(known, "Start", _start(_ANY))
    found["TaskStartMany"] = _choice(known, "StartMany", _start_many(_ANY))
    frames = [run_frame(_name(task), _inputs(task), needs_inputs=task.needs_inputs) for task in known or [_ANY]]
    found[name_of("run")] = {"oneOf": frames}
    return found


#: In place of the tasks, for a caller that may run none.
_ANY = Described("", "", OBJECT, OBJECT)


def _start(task: Described) -> Schema:
    optional = () if task.needs_inputs else ("inputs",)
    properties = {"task": _name(task), "inputs": _inputs(task)}
    return record(properties, optional, **_about(task))


def _start_many(task: Described) -> Schema:
    many = {"type": "array", "items": _inputs(task), "minItems": 1, "maxItems": MANY_LENGTH}
    return record({"task": _name(task), "many": many}, **_about(task))


def _about(task: Described) -> dict[str, Any]:
    if not task.name:
        return {}
    return {**({"description": task.description} if task.description else {}), "x-outputs": ref(f"{task.key}Outputs")}


def _name(task: Described) -> Schema:
    return {"type": "string", "const": task.name} if task.name else TASK_NAME


def _inputs(task: Described) -> Schema:
    return ref(f"{task.key}Inputs") if task.name else OBJECT


def _choice(tasks: Collection[Described], suffix: str, otherwise: Schema) -> Schema:
    if not tasks:
        return otherwise
    mapping = {task.name: ref(f"{task.key}{suffix}")["$ref"] for task in tasks}
    return {
        "oneOf": [{"$ref": target} for target in mapping.values()],
        "discriminator": {"propertyName": "task", "mapping": mapping},
    }


def _in_place(schema: Schema, key: str) -> Schema:
    """The schema of inputs or outputs, in which each parameter's own references point to where it stands now.

    A parameter does not know the document that its schema is put into: ``#/$defs/Point`` means its own `$defs`.
    """
    properties = schema.get("properties", {})
    moved = {name: _moved(_place(key, name), part) for name, part in properties.items()}
    return {**schema, "properties": moved} if properties else schema


def _place(key: str, name: str) -> str:
    escaped = quote(name.replace("~", "~0").replace("/", "~1"), safe="~")
    return f"#/components/schemas/{key}/properties/{escaped}"


def _moved(place: str, part: Any) -> Any:
    if isinstance(part, list):
        return list(map(partial(_moved, place), part))
    if not isinstance(part, dict):
        return part
    target = part.get("$ref")
    moved = {name: _moved(place, inner) for name, inner in part.items()}
    return {**moved, "$ref": f"{place}{target[1:]}"} if isinstance(target, str) and target.startswith("#") else moved
