"""The file that a task gets."""

from __future__ import annotations

from typing import Any

from django.core.files import File

from taskapi.models import StoredFile
from taskapi.storage import get_storage


class InputFile(File):  # type: ignore[type-arg]  # the stubs' generic is not subscriptable at run time
    """A file of the storage, which is opened when it is first read; it has a `content_type`, too."""

    def __init__(self, row: StoredFile) -> None:
        self.row = row
        self._opened: Any = None
        self._closed = False
        self.name = row.name
        self.mode = "rb"
        self.size = row.size
        self.content_type = row.content_type

    @property
    def file(self) -> Any:  # type: ignore[override]  # an attribute in Django, a property in its own FieldFile
        if self._closed:
            raise ValueError(f"The file {self.name!r} is closed. `open()` opens it again.")
        if self._opened is None:
            self._opened = self.row.open()
        return self._opened

    @property
    def path(self) -> str:
        """Where it is on this machine; NotImplementedError if its storage has no paths."""
        return get_storage().path(self.row.location)

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> InputFile:
        """Begin again at its first byte. It is opened to be read as bytes."""
        if mode not in (None, "rb"):
            raise ValueError(f"An input is read as bytes: its mode is 'rb', and not {mode!r}.")
        self.close()
        self._closed = False
        return self

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __bool__(self) -> bool:
        return True
