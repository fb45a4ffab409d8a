"""What the log says of each run: a line when an attempt begins, and one when it ends.

Both have the level INFO. Their records have the fields `task`, `uuid` and `attempt`, and the second has `outcome` and
`seconds` too, for a formatter of the project's own. If the level is off, nothing is formatted.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.utils import timezone

from taskapi.models import TaskInfo
from taskapi.protocol.states import FINAL, ErrorCode
from taskapi.runs import Outcome, RerunReason
from taskapi.workers.terminal import OUTCOMES

logger = logging.getLogger(__name__)

LONGEST_REASON = 200  # characters of an error's sentence: the whole is in the row


def begun(info: TaskInfo) -> None:
    """Log that an attempt begins."""
    if logger.isEnabledFor(logging.INFO):
        again = "" if info.attempt == 1 else f" attempt {info.attempt}"
        fields = {"task": info.task, "uuid": info.uuid, "attempt": info.attempt}
        _log("begun", "Run %s (%s) begins%s.", (info.uuid, info.task, again), fields)


def ended(info: TaskInfo, outcome: Outcome, seconds: float) -> None:
    """Log how an attempt ended: `info` is the run afterwards, and `outcome` is why."""
    if logger.isEnabledFor(logging.INFO):
        word = info.status if info.status in FINAL else _reason(outcome)
        what_next = "" if word == "succeeded" else _what_next(word, info, outcome.run_at)
        fields = {
            "task": info.task, "uuid": info.uuid, "attempt": info.attempt, "outcome": word, "seconds": seconds
        }  # fmt: skip
        said = (info.uuid, info.task, OUTCOMES[word][0], seconds, what_next)
        _log("ended", "Run %s (%s) %s after %.3f s%s.", said, fields)


def _log(function: str, line: str, said: tuple[Any, ...], fields: dict[str, Any]) -> None:
    """As `logger.info`, which would look for its caller on the stack: a quarter of its time."""
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, line, said, None, function, fields)
    logger.handle(record)


def _reason(outcome: Outcome) -> str:
    """Why the run waits again."""
    if outcome.refused:
        return "left"
    return "retried" if outcome.reason is RerunReason.RETRY_ON else outcome.reason.value


def _what_next(word: str, info: TaskInfo, run_at: datetime | None) -> str:
    match word:
        case "failed":
            return _why(info.error or {})
        case "retried":
            pause = max(0.0, (run_at - timezone.now()).total_seconds()) if run_at else 0.0
            return f"; attempt {info.attempt + 1} begins in {pause:.1f} s"
        case "handed back" | "process lost":
            return "; it is executed again"
        case "left":
            return "; its inputs do not fit the task as it is here"
    return ""


def _why(error: dict[str, str]) -> str:
    """The code, and the first line of the sentence; that of an exception is in the log already, with its traceback."""
    code, sentence = error.get("code", ""), error.get("message", "").strip()
    if code == ErrorCode.EXCEPTION or not sentence:
        return f": {code}"
    return f": {code}: {sentence.splitlines()[0][:LONGEST_REASON].rstrip('.')}"
