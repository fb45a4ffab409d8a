"""What was reported of an attempt so far, and how the next report follows from what its task says."""

from __future__ import annotations

from typing import Any

from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import Report, State
from taskapi.tasks.progress import ProgressUpdate


class Account:
    """The account of one attempt: whoever executes it gives the next report its numbers here."""

    def __init__(self, info: TaskInfo) -> None:
        self.info = info
        self._reported: State | TaskInfo = State(info.uuid, info.seq, info.attempt, info.target, info.progress)

    def _monotonic(self, said: ProgressUpdate) -> ProgressUpdate:
        """Progress never goes backwards within an attempt."""
        reported = self._reported.progress
        if reported is not None and (said.progress is None or said.progress < reported):
            return said._replace(progress=reported)
        return said

    def _numbers(self, said: ProgressUpdate) -> dict[str, int | None]:
        return {"target": said.target, "progress": said.progress}

    def _rows(self, messages: list[Any]) -> list[TaskMessage]:
        info, index, seq = self.info, self.info.message_count, self._reported.seq + 1
        return [
            TaskMessage(run_id=info.pk, index=index + n, attempt=info.attempt, seq=seq + n, body=body)
            for n, body in enumerate(messages)
        ]

    def _report(self, now: State | TaskInfo, messages: list[TaskMessage]) -> Report:
        """The report of what was just written, as which it is remembered."""
        before, known = self._reported, self.info.message_count + len(messages)
        report = Report.between(before, now, known, messages)
        self.info.message_count = known
        self._reported = now
        return report
