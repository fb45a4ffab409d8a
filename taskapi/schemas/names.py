"""The keys of the schemas of a task: a task's name may be any string, and a key has only a few characters."""

from __future__ import annotations

import hashlib
import re

LONGEST = 60  # characters of a key that are made of the name
_PLAIN = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")


def key_of(task: str) -> str:
    """The key of a task, such as ``SendMail`` for `send_mail`; no two names have the same.

    It depends on the name alone: another task in the list must not rename what a client was generated from. In a
    plain name each capital of the key begins a word, so the key tells the name. Any other name adds its digest.
    """
    words = re.findall("[A-Za-z0-9]+", task)
    readable = "".join(word[0].upper() + word[1:] for word in words)[:LONGEST]
    if len(task) <= LONGEST and _PLAIN.fullmatch(task):
        return readable
    digest = hashlib.sha256(task.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{readable or 'Task'}_{digest}"
