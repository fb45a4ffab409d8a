"""What the sender of a file says of it: its name and its content type, made safe to be kept and shown."""

from __future__ import annotations

import re
from mimetypes import guess_type
from typing import Any

NAME_LENGTH = 200  # characters
NAMELESS = "file"
ANY_TYPE = "application/octet-stream"
CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,99}/[a-z0-9][a-z0-9.+_-]{0,99}")


def safe_name(name: Any) -> str:
    """The last part of a file's name, without what no reader sees; "file" if nothing is left of it."""
    last = re.split(r"[\\/]", str(name or ""))[-1]
    shown = "".join(char for char in last if char.isprintable()).strip()
    if not shown.strip("."):
        return NAMELESS
    stem, dot, suffix = shown.rpartition(".")
    if len(shown) <= NAME_LENGTH or not stem or len(suffix) > NAME_LENGTH // 2:
        return shown[:NAME_LENGTH]
    return f"{stem[: NAME_LENGTH - len(suffix) - 1]}{dot}{suffix}"


def content_type_of(file: Any) -> str:
    """What the sender says, or else what the name says; without its parameters."""
    said = getattr(file, "content_type", None) or guess_type(safe_name(getattr(file, "name", "")))[0] or ANY_TYPE
    bare = str(said).split(";")[0].strip().lower()
    return bare if CONTENT_TYPE.fullmatch(bare) else ANY_TYPE


def is_of_type(content_type: str, expected: str) -> bool:
    """Whether the content type is the expected one; "image/*" is any image."""
    if expected.endswith("/*"):
        return expected == "*/*" or content_type.startswith(expected[:-1])
    return content_type == expected
