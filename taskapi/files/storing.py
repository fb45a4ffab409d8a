"""How a file gets into the storage: its row first, and the row says when all of it is there."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from secrets import token_hex
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

from django.core.files import File
from django.utils import timezone

from taskapi.conf import settings
from taskapi.exceptions import TaskAPIError
from taskapi.files.clearing import drop
from taskapi.models import FileUse, StoredFile, TaskInfo
from taskapi.params.labels import content_type_of, safe_name
from taskapi.storage import SECRET_BYTES, get_storage, new_location

UNUSED = timedelta(days=1)  # for which a file is kept that no run uses
IN_MEMORY = 2**20  # bytes of a copy that are kept in memory; the rest is in a temporary file


class TooManyUploads(TaskAPIError):
    """The caller has as many uploads as it may have that no run uses."""


class Measured(NamedTuple):
    """A file of bytes, as it goes into the storage."""

    file: File[Any]
    size: int
    digest: str


def store_upload(file: File[Any], user: Any, sender: str = "") -> StoredFile:
    """Store a file that a user (None: nobody) has sent, for a day, until a run uses it. Raises TooManyUploads.

    `sender`: of whom its uploads are counted, if that is nobody who is known.
    """
    row = _reserve(StoredFile.UPLOAD, file, user, sender)
    if sender or user is not None:
        unused = StoredFile.rows().filter(kind=StoredFile.UPLOAD, due__isnull=False, user=user, sender=row.sender)
        if unused.count() > settings.uploads:  # this one is counted, too: so several at once are not too many
            row.delete()
            raise TooManyUploads
    return _fill(row, file)


def store_output(file: File[Any], info: TaskInfo) -> StoredFile:
    """Store a file that a run returns. It is not the run's before the run has succeeded (`settle`)."""
    row = _reserve(StoredFile.OUTPUT, file, info.user)
    FileUse.rows().create(run_id=info.pk, file=row)
    return _fill(row, file, is_ready=False)


def _reserve(kind: str, file: File[Any], user: Any, sender: str = "") -> StoredFile:
    return StoredFile.rows().create(
        reference=token_hex(SECRET_BYTES),
        kind=kind,
        user=user,
        sender="" if user is not None else sender,
        location=new_location(),
        name=safe_name(file.name),
        content_type=content_type_of(file),
        due=timezone.now() + UNUSED,
    )


def _fill(row: StoredFile, file: File[Any], *, is_ready: bool = True) -> StoredFile:
    """Write the file into the storage. If that fails, nothing is left there."""
    storage = get_storage()
    try:
        content, row.size, row.digest = measure(file)
        row.location, planned = storage.save(row.location, content), row.location
        row.is_ready = is_ready
        written = {name: getattr(row, name) for name in ("location", "size", "digest", "is_ready")}
        is_there = StoredFile.rows().filter(pk=row.pk, location=planned).update(**written)
    except BaseException:
        drop([row.pk])
        raise
    if not is_there:  # its run was deleted meanwhile, and its row
        storage.delete(row.location)
    return row


def measure(file: File[Any]) -> Measured:
    """The file, its bytes and its digest; a copy of it, if it is text or can be read only once."""
    digest, size, copy = hashlib.sha256(), 0, None
    if not file.seekable():
        copy = File(SpooledTemporaryFile(IN_MEMORY), file.name)  # noqa: SIM115 - it is closed with what reads it
    for chunk in file.chunks():
        if isinstance(chunk, str):
            if copy is None:
                copy = File(SpooledTemporaryFile(IN_MEMORY), file.name)  # noqa: SIM115 - as above
            chunk = chunk.encode()  # noqa: PLW2901
        if copy is not None:
            copy.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    content = file if copy is None else copy
    content.seek(0)
    return Measured(content, size, digest.hexdigest())
