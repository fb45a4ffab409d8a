"""Which run uses which file: written in the transaction of the run's own row."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.utils import timezone

from taskapi.models import FileUse, StoredFile, TaskInfo


def claim(info: TaskInfo, pks: Collection[int]) -> bool:
    """Let a run that was just recorded use these uploads; False if one of them is gone. Inside its transaction."""
    # An update, and not a look: until the end of the transaction, none of them can be deleted.
    claimed = StoredFile.rows().filter(pk__in=pks, is_ready=True).update(due=None)
    if claimed < len(pks):
        return False
    _use(info, pks)
    return True


def settle(info: TaskInfo, pks: Collection[int]) -> None:
    """As a run ends: these of the files that its attempts have stored are its outputs, the others are due."""
    stored = StoredFile.rows().filter(uses__run=info.pk, is_ready=False).exclude(kind=StoredFile.UPLOAD)
    theirs = list(stored.values_list("pk", flat=True))
    rows = StoredFile.rows()
    rows.filter(pk__in=[pk for pk in theirs if pk in pks]).update(is_ready=True, due=None)
    rows.filter(pk__in=[pk for pk in theirs if pk not in pks]).update(due=timezone.now())


def _use(info: TaskInfo, pks: Iterable[int]) -> None:
    FileUse.rows().bulk_create(FileUse(run_id=info.pk, file_id=pk) for pk in pks)
