"""The files of one conversion: those that a caller names or gives for a new run, and those of a run in its worker."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.files import File
from django.db import DatabaseError, router, transaction
from django.db.models import Q

from taskapi.exceptions import InvalidInputs
from taskapi.files.clearing import drop
from taskapi.files.links import path_of
from taskapi.files.opened import InputFile
from taskapi.files.storing import store_output, store_upload, store_value
from taskapi.files.uses import claim
from taskapi.models import StoredFile, TaskInfo
from taskapi.params import NO_SUCH_UPLOAD, ConversionContext
from taskapi.params.values import NO_NAME
from taskapi.storage import SECRET_BYTES, get_storage
from taskapi.store.rows import CLOCK

REFERENCE = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")


class GivenFiles:
    """The files among the inputs of a new run. A file that is given itself, and not by its reference, is stored."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._stored: dict[int, tuple[File[Any], InputFile]] = {}  # by the identity of a file that was given itself
        self._values: list[StoredFile] = []  # large inputs
        self._used: set[int] = set()
        self._found: list[InputFile] = []
        # Whether a transaction of the caller's goes on, in which the rows are written.
        self._in_transaction = transaction.get_connection(router.db_for_write(StoredFile)).in_atomic_block

    def find(self, reference: str) -> InputFile | None:
        """The upload, if the user may use it: it is the user's, or was sent by nobody who is known."""
        if REFERENCE.fullmatch(reference) is None:
            return None
        mine = Q(user=None) if self._user is None else Q(user=None) | Q(user=self._user.pk)
        kept = Q(due=None) | Q(due__gt=CLOCK) | Q(uses__isnull=False)
        uploads = StoredFile.rows().filter(mine, kept, kind=StoredFile.UPLOAD, is_ready=True)
        row = uploads.filter(reference=reference).first()
        if row is None:
            return None
        file = InputFile(row)
        self._found.append(file)
        return file

    def to_json(self, file: File[Any]) -> dict[str, Any]:
        """As an input is recorded."""
        row = self._store(file).row
        self._used.add(row.pk)
        return {"upload": row.reference}

    @property
    def are_any(self) -> bool:
        return bool(self._used)

    def offload(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs as they are recorded: in the storage, if they are large."""
        recorded, row = store_value(inputs, self._user)
        if row is not None:
            self._values.append(row)
            self._used.add(row.pk)
        return recorded

    def by_content(self, context: ConversionContext) -> ConversionContext:
        """A context in which files are converted to what tells them apart: not to references, which are always new."""
        return replace(context, files=_Contents(self))

    def claim(self, info: TaskInfo) -> None:
        """Let the run, which was just recorded, use these files; InvalidInputs if one is gone. In its transaction."""
        if self._used and not claim(info, self._used):
            raise InvalidInputs({NO_NAME: [NO_SUCH_UPLOAD]})

    def close(self) -> None:
        """Close the uploads that the task's `validate` has looked into."""
        _close(self._found)

    def discard(self) -> None:
        """Delete what was stored here: there is no new run.

        What was there before the transaction that goes on now is deleted when it is committed: a start that was rolled
        back may be tried again. If it is not, a sweep finds what is left.
        """
        stored = [*self._values, *(file.row for _, file in self._stored.values())]
        if not stored:
            return
        if not self._in_transaction:
            delete = partial(drop, [row.pk for row in stored])
            transaction.on_commit(delete, using=router.db_for_write(StoredFile), robust=True)
            return
        try:
            drop([row.pk for row in stored])
        except DatabaseError:  # the transaction is broken, and its end takes the rows away
            for row in stored:
                get_storage().delete(row.location)

    def _store(self, file: File[Any]) -> InputFile:
        if isinstance(file, InputFile):
            return file
        if id(file) not in self._stored:
            self._stored[id(file)] = file, InputFile(store_upload(file, self._user))
            if file.seekable():  # the task's `validate` may look into it
                file.seek(0)
        return self._stored[id(file)][1]


class _Contents:
    """Files as an idempotency key tells them apart."""

    def __init__(self, files: GivenFiles) -> None:
        self._files = files

    def find(self, reference: str) -> File[Any] | None:
        return self._files.find(reference)

    def to_json(self, file: File[Any]) -> dict[str, Any]:
        row = self._files._store(file).row  # noqa: SLF001 - of this module
        return {"name": row.name, "content_type": row.content_type, "digest": row.digest}


class RunFiles:
    """The files of a run that is executed: those of its inputs, and those that it returns."""

    def __init__(self, info: TaskInfo) -> None:
        self._info = info
        self._inputs: list[InputFile] = []
        self._outputs: list[int] = []
        self._abandoned = False
        self._lock = threading.Lock()  # a task that is stopped may leave a thread behind, which still stores a file

    def find(self, reference: str) -> InputFile | None:
        """The file of an input."""
        uploads = StoredFile.rows().filter(uses__run=self._info.pk, kind=StoredFile.UPLOAD, is_ready=True)
        row = uploads.filter(reference=reference).first()
        if row is None:
            return None
        file = InputFile(row)
        self._inputs.append(file)
        return file

    def to_json(self, file: File[Any]) -> dict[str, Any]:
        """Store a file that the run returns: as an output is recorded."""
        row = store_output(file, self._info)
        self._stored(row)
        return {
            "name": row.name,
            "size": row.size,
            "content_type": row.content_type,
            "url": path_of(self._info.uuid, row.reference),
        }

    def offload(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs as they are recorded: in the storage, if they are large."""
        recorded, row = store_value(outputs, self._info.user, self._info)
        if row is not None:
            self._stored(row)
        return recorded

    def _stored(self, row: StoredFile) -> None:
        with self._lock:
            self._outputs.append(row.pk)
        if self._abandoned:
            self._drop()

    @property
    def are_any(self) -> bool:
        return bool(self._inputs or self._outputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The ids of the files that were stored."""
        return tuple(self._outputs)

    def abandon(self) -> None:
        """The attempt does not succeed: keep nothing of what was stored, or is being stored."""
        self._abandoned = True

    def end(self) -> None:
        """Close the files of the inputs, and delete what is not kept."""
        _close(self._inputs)
        if self._abandoned:
            self._drop()

    def _drop(self) -> None:
        with self._lock:
            stored, self._outputs = self._outputs, []
        if stored:
            with suppress(DatabaseError):  # it is away, or the task has left a broken transaction: a sweep finds them
                drop(stored)


def _close(files: Iterable[InputFile]) -> None:
    for file in files:
        with suppress(Exception):  # a task may have done anything with it, and each storage has errors of its own
            file.close()
