"""The syntax of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import re

_BREAK = re.compile(r"\r\n|\r|\n")  # what ends a line there; `splitlines` knows more
_NO_ID = re.compile(r"[\r\n\0]")


def server_sent(data: str, *, event: str | None = None, id: str | None = None, retry: int | None = None) -> str:  # noqa: A002 - the name of the field
    """One event as text. Each line of `data` gets a field of its own, and the client joins them with "\\n".

    Browsers ignore an event whose data is empty. `retry` is in milliseconds.
    """
    for value in (event, id):
        if value is not None and _NO_ID.search(value):
            raise ValueError(f"The name or the id of a server-sent event has neither line breaks nor NUL: {value!r}")
    lines = [] if event is None else [f"event: {event}"]
    lines += [] if id is None else [f"id: {id}"]
    lines += [] if retry is None else [f"retry: {retry}"]
    lines += [f"data: {line}" for line in _BREAK.split(data)]
    return "\n".join(lines) + "\n\n"
