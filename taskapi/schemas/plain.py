"""Definitions as older tools read them: in OpenAPI 3.0, and under drf-spectacular's hook for enums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskapi.schemas.parts import Schema

#: Words of JSON Schema that OpenAPI 3.0 does not have. Without them, a schema takes more than it should.
_UNKNOWN = frozenset(
    {
        "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$schema", "contains", "contentEncoding",
        "contentMediaType", "contentSchema", "dependentRequired", "dependentSchemas", "else", "if", "maxContains",
        "minContains", "patternProperties", "prefixItems", "propertyNames", "then", "unevaluatedItems",
        "unevaluatedProperties",
    }
)  # fmt: skip


def as_openapi_3_0(part: Any) -> Any:
    """A part of a document of OpenAPI 3.1 as OpenAPI 3.0 has it."""
    if isinstance(part, list):
        return [as_openapi_3_0(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    known = {name: value for name, value in part.items() if name not in _UNKNOWN}
    converted = {name: _each(name, value, as_openapi_3_0) for name, value in known.items()}
    return _in_words_of_3_0(converted)


def hidden_from_enum_hook(part: Any) -> Any:
    """A part of a document in which no property is itself an enum.

    `postprocess_schema_enums`, which drf-spectacular runs by default, makes components of such properties. It would
    rename the project's own enums of the same name (`status`), and fail for an enum without a type.
    """
    if isinstance(part, list):
        return [hidden_from_enum_hook(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    shown = {name: _each(name, value, hidden_from_enum_hook) for name, value in part.items()}
    properties = shown.get("properties")
    if isinstance(properties, Mapping):
        shown["properties"] = {name: _wrapped(schema) for name, schema in properties.items()}
    return shown


def _each(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    """The value of a word, converted. The keys of `properties` are names and no words."""
    if name in ("properties", "$defs") and isinstance(value, Mapping):
        return {key: convert(as_dict(inner)) for key, inner in value.items()}
    if name in ("enum", "const", "default", "example", "examples", "mapping"):
        return value
    return convert(as_dict(value)) if name == "items" else convert(value)


def as_dict(schema: Any) -> Any:
    """The schemas true and false, which many tools do not know, as objects."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _wrapped(schema: Schema) -> Schema:
    if "enum" in schema:
        return {"allOf": [schema]}
    items = schema.get("items")
    return {**schema, "items": {"allOf": [items]}} if isinstance(items, Mapping) and "enum" in items else schema


def _in_words_of_3_0(schema: dict[str, Any]) -> Schema:
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if isinstance(schema.get("examples"), list):
        schema["example"] = next(iter(schema.pop("examples")), None)
    if schema.get("required") == []:
        del schema["required"]
    if "$defs" in schema:
        schema["x-defs"] = schema.pop("$defs")
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), (int, float)) and not isinstance(schema[bound], bool):
            schema |= {limit: schema[bound], bound: True}
    if schema.get("type") == "null":
        return {"enum": [None], **{name: value for name, value in schema.items() if name != "type"}}
    if isinstance(schema.get("type"), list):
        return _with_types(schema, schema.pop("type"))
    return _reference(schema) if isinstance(schema.get("$ref"), str) else schema


def _with_types(schema: Schema, types: list[str]) -> Schema:
    """The schema with several types: OpenAPI 3.0 has one type, and says "or null" by `nullable`."""
    several = [
        {"type": kind, "items": schema.get("items", {})} if kind == "array" else {"type": kind}
        for kind in types
        if kind != "null"
    ]
    if not several:
        return {**schema, "enum": [None]}
    if "null" in types:
        several = [{**one, "nullable": True} for one in several]
    return {**schema, **several[0]} if len(several) == 1 else {**schema, "anyOf": several}


def _reference(schema: Schema) -> Schema:
    """A reference, which may have no other words beside it."""
    target = {"$ref": schema["$ref"].replace("/$defs/", "/x-defs/")}
    others = {name: value for name, value in schema.items() if name != "$ref"}
    return {"allOf": [target], **others} if others else target
