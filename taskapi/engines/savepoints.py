"""A task inside the transaction of its caller: what it leaves broken is undone, and the transaction works again."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, connections, transaction


def begin() -> list[transaction.Atomic]:
    """A block inside each transaction of this thread: a worker has no transaction that a task could break."""
    blocks = []
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            outer: Any = connection.atomic_blocks[-1]
            block: Any = transaction.atomic(connection.alias)
            # In a TestCase, Django allows `durable=True` right inside the test's own blocks: this is as good as one.
            block._from_testcase = outer._from_testcase  # noqa: SLF001 - Django has no other way
            block.__enter__()
            blocks.append(block)
    return blocks


def end(blocks: list[transaction.Atomic]) -> bool:
    """End the blocks; True if a transaction was broken, so that what was done in its block is undone."""
    undone = False
    for block in blocks:
        connection = connections[block.using]  # type: ignore[index]  # `atomic()` was given an alias
        if connection.needs_rollback or not connection.is_usable():
            undone = True
            block.__exit__(DatabaseError, DatabaseError(), None)
        else:
            block.__exit__(None, None, None)
    return undone
