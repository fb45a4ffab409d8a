"""Processes of which a test knows only the id."""

from contextlib import suppress
from pathlib import Path


def is_there(pid: int) -> bool:
    """Whether the process has not ended; a zombie has."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return state(pid) != "Z"
    return False


def zombies_of(parent: int) -> list[int]:
    """The children that have ended and whose exit code the parent has not read."""
    return [pid for pid in children_of(parent) if state(pid) == "Z"]


def children_of(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for file in children for pid in file.read_text().split()]


def state(pid: int) -> str:
    """The letter that Linux gives the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
