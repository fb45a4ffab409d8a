"""Reading the messages of a run, in pages that a follower has room for."""

from __future__ import annotations

from django.db import router
from django.db.models.functions import Length

from taskapi.conf import settings
from taskapi.models import TaskInfo, TaskMessage
from taskapi.protocol import OMITTED, Message

FIRST_PAGE, LAST_PAGE = 50, 800  # messages that are read at once; doubling
SHOWN = 10_000  # messages in a snapshot
PAGE_BYTES = 256 * 1024  # of messages that are read at once, unless it is a single one
ESCAPES = 3  # JSON is at most so many times as long if it is written in ASCII, as in the database


def read_messages(info: TaskInfo, known: int, most: int = FIRST_PAGE) -> list[Message]:
    """The next messages past the first `known`: at least one if `info` counts more, and PAGE_BYTES at most.

    A run may have a million of them, and one may be as large as the memory: so their sizes are read first. A message
    that no frame can hold comes without its body.
    """
    end = min(known + most, info.message_count)
    if end <= known:
        return []
    log = TaskMessage.objects.using(router.db_for_write(TaskMessage)).filter(run=info.pk, index__gte=known)
    log = log.order_by("index")
    total = 0
    for index, size in log.filter(index__lt=end).values_list("index", Length("body")):
        total += size or 0
        if index == known and total > ESCAPES * settings.sent_frame_bytes:
            without = log.filter(index=known).values_list("index", "attempt", "seq")
            return [Message(*row, OMITTED) for row in without]
        if index > known and total > PAGE_BYTES:
            end = index
            break
    rows = log.filter(index__lt=end).values_list("index", "attempt", "seq", "body")
    return [Message(*row) for row in rows]
