"""Database routers, as projects have them."""

from typing import Any


class To:
    """All models are in the database of that alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, *_: Any, **__: Any) -> str:
        return self.alias

    db_for_write = db_for_read


class Replica(To):
    """What is written to one database is read from another, which may lag behind."""

    def __init__(self, alias: str, primary: str) -> None:
        super().__init__(alias)
        self.primary = primary

    def db_for_write(self, *_: Any, **__: Any) -> str:
        return self.primary
