"""JSON text, as it travels and as it is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 64  # lists and objects inside one another; Python gives up at some hundreds
SAFE_INTEGER = 2**53 - 1  # the largest int that a JavaScript client reads exactly

# Compact; "\u2028" and the like travel as they are. NaN and infinities are not JSON.
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_ascii_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(value: Any) -> str:
    """JSON text that can be sent; a lone surrogate has no bytes in UTF-8, so it is sent as its escape."""
    text = _encoder.encode(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ascii_encoder.encode(value)
    return text


def decode(text: str) -> Any:
    """The value of a JSON text; ValueError if it is not JSON, RecursionError if it is nested too deeply."""
    return _decoder.decode(text)


def byte_size(text: str) -> int:
    """How many bytes the text takes on the wire."""
    return len(text) if text.isascii() else len(text.encode())


def is_too_deep(value: Any) -> bool:
    """Whether a JSON value has lists and objects inside one another past MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for outer in level if isinstance(outer, (list, dict)) for item in _items(outer)]
        if not level:
            return False
    return True


def _items(outer: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON.")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
