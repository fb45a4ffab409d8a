"""Files of runs: in the project's storage, each with a row (`StoredFile`) that outlives it.

A row is written before its file, and goes after it: so a process that dies in between leaves a row, by which a sweep
finds the file. Every function here is synchronous, and reads or writes a storage that may be far away. So none is
called on an event loop.
"""

from taskapi.files.clearing import clear, drop, release
from taskapi.files.conversion import GivenFiles, RunFiles
from taskapi.files.storing import open_stored, store_upload
from taskapi.files.uses import settle

__all__ = [
    "GivenFiles",
    "RunFiles",
    "clear",
    "drop",
    "open_stored",
    "release",
    "settle",
    "store_upload",
]
