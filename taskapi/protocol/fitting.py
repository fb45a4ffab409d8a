"""Frames that fit: what is too large for a frame is left out and named, and the client fetches it over REST.

A server has a limit to what it sends. daphne raises for a larger frame, and the client would wait for ever. What counts
is the UTF-8 of the text.
"""

from __future__ import annotations

import json
from itertools import chain, combinations
from typing import Any

from taskapi.protocol.encoding import byte_size, encode

LEAST_FRAME = 4096  # bytes: a frame without all that can be left out is smaller, with any names and any `ref`
OMITTABLE = ("inputs", "outputs", "error")  # of a representation; the client is most likely to know the first
_NAMING = 64  # bytes: what `"omitted":[…]` takes at most

TOO_LONG = "The description of this error is too long for a frame. Make the same call over REST to get all of it."


def within(text: str, limit: int) -> str:
    """The text of a frame, with parts left out if it has more than `limit` bytes."""
    if 4 * len(text) <= limit or byte_size(text) <= limit:  # no character takes more than 4
        return text
    return fit(json.loads(text), limit)[1]


def fit(frame: dict[str, Any], limit: int) -> tuple[dict[str, Any], str]:
    """The frame and its text, which has `limit` bytes at most: what does not fit is left out, and named."""
    text = encode(frame)
    excess = byte_size(text) - limit
    if excess <= 0:
        return frame, text
    if "task" in frame:
        frame = {**frame, "task": _shorten(frame["task"], excess)}
    elif frame["type"] == "message":
        frame = {**{name: value for name, value in frame.items() if name != "message"}, "omitted": True}
    else:
        frame = {**frame, "detail": TOO_LONG, "omitted": ["detail"]}
    return frame, encode(frame)


def _shorten(task: dict[str, Any], excess: int) -> dict[str, Any]:
    """The representation with so many fields left out that it is smaller by `excess` bytes; as few as possible."""
    sizes = {name: byte_size(encode(task[name])) for name in OMITTABLE if name in task}
    choices = chain.from_iterable(combinations(sizes, count) for count in range(1, len(sizes) + 1))
    enough = (names for names in choices if sum(sizes[name] for name in names) >= excess + _NAMING)
    left_out = {*task.get("omitted", ()), *next(enough, tuple(sizes))}
    kept = {name: value for name, value in task.items() if name not in left_out}
    return {**kept, "omitted": [name for name in OMITTABLE if name in left_out]}
