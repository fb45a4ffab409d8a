"""The address of a Redis: `redis://`, `rediss://`, `unix://`, or Sentinel.

Sentinel is written ``sentinel://[user:password@]host:port,host:port/service[/database]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import redis

SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "sentinel")


class Sentinel(NamedTuple):
    """The parts of a `sentinel://` address."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    username: str | None
    password: str | None

    @property
    def connection(self) -> dict[str, Any]:
        """The options of the connections to the master."""
        return {"db": self.database, "username": self.username, "password": self.password}


def check_url(url: str) -> None:
    """Raise ValueError, with a sentence, for an address that no client can be made from."""
    if not isinstance(url, str):
        raise ValueError(f"expected an address such as redis://127.0.0.1:6379/0, got {url!r}")
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"expected an address that begins with one of {', '.join(SCHEMES)}, got {url!r}")
    if parts.scheme == "sentinel":
        parse_sentinel(url)
        return
    if parts.scheme != "unix":
        _database(parts.path.strip("/"))  # if it is no number, redis-py takes database 0, and arq does not start
    redis.ConnectionPool.from_url(url)


def _database(text: str) -> int:
    """The number of a database at the end of an address; 0 if there is none."""
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError(f"expected the address to end with the number of a database, got {text!r}")
    return int(text or 0)


def parse_sentinel(url: str) -> Sentinel | None:
    """The parts of a `sentinel://` address; None for another scheme."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if not addresses or not service:
        raise ValueError(f"expected sentinel://host:port,host:port/service, got {url!r}")
    hosts = []
    for address in addresses.split(","):
        host, _, port = address.partition(":")
        hosts.append((host, int(port or SENTINEL_PORT)))
    return Sentinel(tuple(hosts), service, _database(database), unquote(username) or None, unquote(password) or None)
