"""How a file goes: its row says so, then it is deleted from the storage, and its row is deleted last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import OperationalError, router, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from taskapi.models import FileUse, StoredFile
from taskapi.storage import get_storage
from taskapi.store.database import workers_transaction
from taskapi.store.rows import CLOCK
from taskapi.store.silence import progressed

logger = logging.getLogger(__name__)

CLEARED_TOGETHER = 100  # files that a sweep deletes
TRY_AGAIN = timedelta(hours=1)  # after the storage has refused to delete a file


def after_use(sender: Any, instance: FileUse, using: str, **kwargs: Any) -> None:
    """After a use was deleted, with its run: delete the file on commit, if no other run uses it."""
    # Now, and not on commit: if this process dies before that, the sweep looks at the file.
    StoredFile.objects.using(using).filter(pk=instance.file_id).update(due=timezone.now())
    transaction.on_commit(partial(release, instance.file_id), using=using, robust=True)


def before_user_deletion(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    """Before a user is deleted: delete, on commit, the user's uploads that no run uses. Others go with their runs."""
    if not router.allow_migrate_model(using, StoredFile):
        return
    unused = StoredFile.objects.using(using).filter(user=instance.pk, due__isnull=False)
    pks = list(unused.values_list("pk", flat=True))
    if pks:
        unused.update(user=None, is_ready=False, due=timezone.now())
        transaction.on_commit(partial(drop, pks), using=using, robust=True)


def release(pk: int) -> None:
    """Delete a file that a run has used, if no run uses it any more."""
    if _is_doomed(StoredFile.rows().filter(pk=pk)):
        drop([pk])


def drop(pks: Sequence[int]) -> None:
    """Delete these files, which no run may use any more. What cannot be deleted now is left to the sweep."""
    doomed = StoredFile.rows().filter(pk__in=pks)
    doomed.update(is_ready=False, due=timezone.now())
    _delete(doomed)


def clear() -> int:
    """Look at files that are due: uploads that nobody has used for a day, and what was left half-way.

    Deletes those that no run uses; how many.
    """
    due = StoredFile.rows().filter(due__lt=CLOCK)
    doomed = []
    for pk in list(due.order_by("due").values_list("pk", flat=True)[:CLEARED_TOGETHER]):
        with suppress(OperationalError):  # its row is locked, by a long transaction of the project say: another time
            if _is_doomed(due.filter(pk=pk)):
                doomed.append(pk)
    return _delete(StoredFile.rows().filter(pk__in=doomed))


def _is_doomed(mine: QuerySet[StoredFile]) -> bool:
    """Whether no run uses this file; then none can use it any more."""
    with workers_transaction(mine.db):
        # The lock of the row, on each database. A run that begins to use the file waits, or we see its use.
        if not mine.update(size=F("size")):
            return False
        if mine.filter(is_ready=True, uses__isnull=False).exists():
            mine.update(due=None)
            return False
        mine.update(is_ready=False, due=timezone.now())
    return True


def _delete(doomed: Iterable[StoredFile]) -> int:
    storage, deleted = get_storage(), 0
    for file in doomed:
        mine = StoredFile.rows().filter(pk=file.pk)
        try:
            storage.delete(file.location)
        except FileNotFoundError:
            pass
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and other files wait
            logger.warning("The storage does not delete %s; it is asked again in an hour: %r", file.location, error)
            mine.update(due=timezone.now() + TRY_AGAIN)
            continue
        progressed()  # the database is not silent: the storage took a while
        deleted += mine.delete()[0] > 0
    return deleted
