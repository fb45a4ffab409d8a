"""Database routers like those of projects."""

from typing import Any


class To:
    """Puts all models into the database with that alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, *_: Any, **__: Any) -> str:
        return self.alias

    db_for_write = db_for_read


class Replica(To):
    """Writes to one database and reads from another, which may lag behind."""

    def __init__(self, alias: str, primary: str) -> None:
        super().__init__(alias)
        self.primary = primary

    def db_for_write(self, *_: Any, **__: Any) -> str:
        return self.primary
