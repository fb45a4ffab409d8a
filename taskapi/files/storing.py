"""How a file gets into the storage: its row first, and the row says when all of it is there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from secrets import token_hex
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

from django.core.files.base import ContentFile, File
from django.utils import timezone

from taskapi.conf import settings
from taskapi.exceptions import StorageUnavailable, TooManyUploads
from taskapi.files.clearing import drop
from taskapi.models import FileUse, JSONTextField, StoredFile, TaskInfo
from taskapi.params.labels import content_type_of, safe_name
from taskapi.storage import SECRET_BYTES, Kept, Offloaded, get_storage, new_location

logger = logging.getLogger(__name__)

UNUSED = timedelta(days=1)  # for which a file is kept that no run uses
JSON = JSONTextField()
IN_MEMORY = 2**20  # bytes of a copy that are kept in memory; the rest is in a temporary file


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


def store_value(
    value: dict[str, Any], user: Any, info: TaskInfo | None = None
) -> tuple[dict[str, Any], StoredFile | None]:
    """The value as it is recorded: in the storage, if its JSON is larger than TASK_API_OFFLOAD_BYTES.

    `info`: the run of which the value is the outputs. It is not the run's before the run has succeeded.
    """
    if settings.offload_bytes is None:
        return value, None
    text = JSON.get_prep_value(value) or ""
    if len(text) <= settings.offload_bytes:
        return value, None
    row = _reserve(StoredFile.VALUE, ContentFile(text.encode(), "value.json"), user)
    if info is not None:
        FileUse.rows().create(run_id=info.pk, file=row)
    row = _fill(row, ContentFile(text.encode(), "value.json"), is_ready=info is None)
    return Offloaded(value, Kept(row.location, len(text), tuple(value))), row


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
    try:
        with measured(file) as (content, row.size, row.digest):
            row.location, planned = _save(row.location, content), row.location
        row.is_ready = is_ready
        written = {name: getattr(row, name) for name in ("location", "size", "digest", "is_ready")}
        is_there = StoredFile.rows().filter(pk=row.pk, location=planned).update(**written)
    except BaseException:
        drop([row.pk])
        raise
    if not is_there:  # its run was deleted meanwhile, and its row
        get_storage().delete(row.location)
    return row


def _save(location: str, content: File[Any]) -> str:
    try:
        return get_storage().save(location, content)
    except Exception as error:  # each storage has errors of its own
        logger.exception("The storage does not take a file, which was to be %s.", location)
        raise StorageUnavailable from error


def open_stored(row: StoredFile) -> File[Any]:
    """What is in the file; FileNotFoundError if it is gone."""
    try:
        return row.open()
    except FileNotFoundError:
        raise
    except Exception as error:  # as above
        logger.exception("The storage does not give the file %s.", row.location)
        raise StorageUnavailable from error


@contextmanager
def measured(file: File[Any]) -> Iterator[Measured]:
    """The file, its bytes and its digest; a copy of it, if it is text or can be read only once."""
    with ExitStack() as copies:
        copy = None if file.seekable() else _temporary(file, copies)
        digest, size = hashlib.sha256(), 0
        for chunk in file.chunks():
            content = chunk.encode() if isinstance(chunk, str) else chunk
            if copy is None and content is not chunk:
                copy = _temporary(file, copies)
            if copy is not None:
                copy.write(content)
            digest.update(content)
            size += len(content)
        whole = file if copy is None else copy
        whole.seek(0)
        yield Measured(whole, size, digest.hexdigest())


def _temporary(file: File[Any], copies: ExitStack) -> File[Any]:
    return File(copies.enter_context(SpooledTemporaryFile(IN_MEMORY)), file.name)
