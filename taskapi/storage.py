"""Which of the project's storages keeps files, and under which names."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from django.conf import settings
from django.core.files.storage import Storage, storages
from django.utils import timezone

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
