"""The life of a run: the only code that writes a status.

Every function that is named here is synchronous and writes one row, or those of one call (`batches`), inside the
caller's transaction if there is one. Beside them, `access` decides who may call them, `refusals` says how a refusal
reads, and `listing` reads many runs.
"""

from taskapi.runs.attempts import LEASE, begin, finish, is_recorded, record
from taskapi.runs.batches import Batch, draft_many, save_many, start_many
from taskapi.runs.cancelling import cancel, stopped_by
from taskapi.runs.ending import end, final_report
from taskapi.runs.outcomes import CANCELLED, HANDED_BACK, PROCESS_LOST, WORKER_LOST, Outcome, RerunReason
from taskapi.runs.queueing import EARLY, enqueue
from taskapi.runs.starting import DraftOptions, Submission, draft, retry, save, start, submit
from taskapi.runs.versions import UNKNOWN_LIMIT, UNKNOWN_PAUSE

__all__ = [
    "CANCELLED",
    "EARLY",
    "HANDED_BACK",
    "LEASE",
    "PROCESS_LOST",
    "UNKNOWN_LIMIT",
    "UNKNOWN_PAUSE",
    "WORKER_LOST",
    "Batch",
    "DraftOptions",
    "Outcome",
    "RerunReason",
    "Submission",
    "begin",
    "cancel",
    "draft",
    "draft_many",
    "end",
    "enqueue",
    "final_report",
    "finish",
    "is_recorded",
    "record",
    "retry",
    "save",
    "save_many",
    "start",
    "start_many",
    "stopped_by",
    "submit",
]
