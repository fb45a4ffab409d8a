"""How a file goes: its row says so, then it is deleted from the storage, and its row is deleted last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import router, transaction
from django.db.models import F
from django.utils import timezone

from taskapi.models import FileUse, StoredFile
from taskapi.storage import get_storage
from taskapi.store.rows import CLOCK
from taskapi.store.silence import progressed

logger = logging.getLogger(__name__)

CLEARED_TOGETHER = 100  # files that a sweep deletes
TRY_AGAIN = timedelta(hours=1)  # after the storage has refused to delete a file


def after_use(sender: Any, instance: FileUse, using: str, **kwargs: Any) -> None:
    """After a use was deleted, with its run: delete the file on commit, if no other run uses it."""
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
    using = router.db_for_write(StoredFile)
    with transaction.atomic(using):
        mine = StoredFile.objects.using(using).filter(pk=pk)
        # The lock of the row, on each database. A run that begins to use the file waits, or we see its use.
        if not mine.update(size=F("size")):
            return
        if FileUse.objects.using(using).filter(file=pk).exists():
            return
        mine.update(is_ready=False, due=timezone.now())
    drop([pk])


def drop(pks: Sequence[int]) -> None:
    """Delete these files, which no run may use any more. What cannot be deleted now is left to the sweep."""
    doomed = StoredFile.rows().filter(pk__in=pks)
    doomed.update(is_ready=False, due=timezone.now())
    _delete(doomed)


def clear() -> int:
    """Delete files that are due: uploads that nobody has used for a day, and what was left half-way; how many."""
    due = StoredFile.rows().filter(due__lt=CLOCK)
    page = list(due.order_by("due").values_list("pk", flat=True)[:CLEARED_TOGETHER])
    if not page:
        return 0
    # Not if a run has begun to use one of them meanwhile: then it is not due any more.
    due.filter(pk__in=page).update(is_ready=False, due=timezone.now())
    return _delete(StoredFile.rows().filter(pk__in=page, is_ready=False, due__isnull=False))


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
