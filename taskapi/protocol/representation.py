"""The one shape of a run on the wire, in frames and in REST."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskapi.models import TaskInfo


def represent(info: TaskInfo, messages: Sequence[Any] | None = None, *, inputs: bool = True) -> dict[str, Any]:
    """The representation of the run; without `messages` or `inputs`, that key is left out, and so is a missing `hint`.

    Inputs and outputs that are kept in a storage are loaded here: on an event loop, load them before.
    """
    return {
        "uuid": str(info.uuid),
        "task": info.task,
        "status": str(info.status),
        "progress": info.progress,
        "target": info.target,
        **({"inputs": info.inputs} if inputs else {}),
        "outputs": info.outputs,
        **({} if messages is None else {"messages": list(messages)}),
        "message_count": info.message_count,
        "error": info.error,
        "attempt": info.attempt,
        "seq": info.seq,
        "cancel_requested": info.cancel_requested,
        "created": timestamp(info.created),
        "started": timestamp(info.started),
        "finished": timestamp(info.finished),
        **({} if info.hint is None else {"hint": info.hint}),
    }


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, as DRF writes it."""
    if moment is None:
        return None
    # a naive one (USE_TZ = False) is in the zone of the process, which Django has set
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
