"""How a definition is written: references to other definitions, objects, and what may be null."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
Components = dict[str, dict[str, Any]]  # by kind ("schemas", "responses", …), and then by name

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NULL: Schema = {"type": "null"}
TIME: Schema = {"type": "string", "format": "date-time"}
UUID: Schema = {"type": "string", "format": "uuid"}
OBJECT: Schema = {"type": "object"}


def ref(name: str, kind: str = "schemas") -> Schema:
    """A reference to a definition; both documents have theirs at the same place."""
    return {"$ref": f"#/components/{kind}/{name}"}


def record(properties: Mapping[str, Schema], optional: Collection[str] = (), **more: Any) -> Schema:
    """An object that has these properties and no others; all but the `optional` ones are always there."""
    return {
        "type": "object",
        **more,
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def one_of(words: Collection[str], **more: Any) -> Schema:
    """One of these words. A single word is a constant: it tells an object from others."""
    known = list(words)
    return {**more, "type": "string", **({"const": known[0]} if len(known) == 1 else {"enum": known})}


def said(schema: Schema, description: str) -> Schema:
    """The schema with a description."""
    return {**schema, "description": description}


def references(part: Any) -> Iterator[tuple[str, str]]:
    """The components that a part of a document refers to, each as its kind and its name."""
    if isinstance(part, Mapping):
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith("#/components/"):
            kind, name = target.split("/")[2:4]
            yield kind, name
    inner = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    for item in inner:
        yield from references(item)


def needed(part: Any, components: Components) -> Components:
    """The components that a part of a document needs, and those that these need; sorted."""
    found: set[tuple[str, str]] = set()
    waiting = list(references(part))
    while waiting:
        kind, name = waiting.pop()
        if (kind, name) not in found:
            found.add((kind, name))
            waiting += references(components[kind][name])
    chosen: Components = {}
    for kind, name in sorted(found):
        chosen.setdefault(kind, {})[name] = components[kind][name]
    return chosen
