"""Which of the project's storages keeps files, and under which names; and values that are kept there."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from django.conf import settings
from django.core.files.storage import Storage, storages
from django.utils import timezone

from taskapi.exceptions import StorageUnavailable

logger = logging.getLogger(__name__)

ALIASES = ("taskapi", "default")  # the first that STORAGES has is used
FOLDER = "taskapi"
SECRET_BYTES = 20  # 160 bits, which nobody guesses


def alias() -> str:
    """The alias, in STORAGES, of the storage that keeps files."""
    return next((alias for alias in ALIASES if alias in settings.STORAGES), ALIASES[-1])


def get_storage() -> Storage:
    """The storage that keeps files."""
    return storages[alias()]


def new_location() -> str:
    """A new name in the storage, below a folder for each day.

    It has nothing of what a client says: no path, and no suffix that a web server would make a content type of. It is a
    secret of its own: whoever knows the reference of a file does not know its address below MEDIA_URL.
    """
    return f"{FOLDER}/{timezone.now():%Y-%m-%d}/{token_hex(SECRET_BYTES)}"


def signed_link(location: str, disposition: str, content_type: str) -> str | None:
    """The storage's own link to a file, for a short time and signed; None if it makes no such links.

    Only a storage that says so by `querystring_auth` is asked, as those of django-storages for S3 do. The links of
    others (MEDIA_URL) are open to everybody, for ever.
    """
    storage: Any = get_storage()
    if not getattr(storage, "querystring_auth", False) or not hasattr(storage, "bucket_name"):
        return None
    asked = {"ResponseContentDisposition": disposition, "ResponseContentType": content_type}
    link: str = storage.url(location, parameters=asked)
    return link


MARK = "@"  # the first character in a column, in place of a value: no JSON begins with it


@dataclass(frozen=True)
class Kept:
    """An object in JSON that is in the storage and not in the table, because it is large."""

    location: str
    size: int  # bytes of its JSON
    names: tuple[str, ...]  # of its members: a worker looks at them before it loads the rest

    @property
    def text(self) -> str:
        """What the column has in place of the value."""
        return MARK + json.dumps([self.location, self.size, self.names])

    @classmethod
    def parse(cls, text: str) -> Kept:
        location, size, names = json.loads(text[len(MARK) :])
        return cls(location, size, tuple(names))

    def load(self) -> Offloaded:
        """The value. It reads the storage, so it is never called on an event loop."""
        try:
            with get_storage().open(self.location, "rb") as file:
                return Offloaded(json.loads(file.read()), self)
        except Exception as error:  # each storage has errors of its own
            logger.exception("The storage does not give the value %s.", self.location)
            raise StorageUnavailable from error


class Offloaded(dict[str, Any]):
    """A value that is kept in the storage, in memory."""

    def __init__(self, value: dict[str, Any], kept: Kept) -> None:
        super().__init__(value)
        self.kept = kept
