"""Server-sent events as text (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import re

_LINE_BREAK = re.compile("\r\n|\r|\n")

HEARTBEAT = ":\n\n"  # a comment: its reader sees nothing, and proxies see that the stream is alive


def server_sent(
    data: str,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's name
    retry: int | None = None,
) -> str:
    """One event with its `data`, which may have line breaks. `retry` is in milliseconds."""
    fields = [("event", event), ("id", id), ("retry", retry), *(("data", line) for line in _LINE_BREAK.split(data))]
    return "".join(f"{name}: {value}\n" for name, value in fields if value is not None) + "\n"
