"""How log lines look in a terminal: the outcome of a run has a colour. Nothing here needs the apps."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import IO

from django.core.management.color import color_style

RUN_LINES = "taskapi.workers.journal"  # the logger of the lines of each run

#: By outcome: how the line says it, and Django's name for its colour.
OUTCOMES = {
    "succeeded": ("succeeded", "SUCCESS"),
    "failed": ("failed", "ERROR"),
    "cancelled": ("was cancelled", "WARNING"),
    "retried": ("failed", "WARNING"),
    "handed back": ("was handed back", "WARNING"),
    "process lost": ("lost its process", "WARNING"),
    "left": ("was left to others", "WARNING"),
}


class LineFormatter(logging.Formatter):
    """Time, level and message. The time of a second is formatted once: a busy worker logs a thousand lines in it."""

    _second = (0, "")

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        second = int(record.created)
        known, text = self._second  # both at once: another thread may format
        if second != known:
            text = time.strftime(self.default_time_format, time.localtime(second))
            self._second = second, text
        return f"{text},{int(record.msecs):03}"


class TerminalFormatter(LineFormatter):
    """Paints the outcome of a run, in the colours of manage.py (DJANGO_COLORS)."""

    def __init__(self) -> None:
        super().__init__()
        style = color_style(force_color=True)
        self._paint: dict[str, Callable[[str], str]] = {
            word: getattr(style, role) for word, (_, role) in OUTCOMES.items()
        }

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        line = super().formatMessage(record)
        word = getattr(record, "outcome", None)
        if word not in OUTCOMES:
            return line
        phrase = f"{OUTCOMES[word][0]} after"
        return line.replace(phrase, self._paint[word](OUTCOMES[word][0]) + " after", 1)


def wants_colour(stream: IO[str], told: bool | None = None) -> bool:
    """Whether to paint what goes there; unless told, only a terminal whose user has not set NO_COLOR.

    https://no-color.org says what that variable means.
    """
    if told is not None:
        return told
    return not os.environ.get("NO_COLOR") and stream.isatty()
