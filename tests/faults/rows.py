"""What the storm reads and writes in the database itself, past the servers."""

from contextlib import suppress

import psycopg

from tests.faults.stack import FaultStack

STATUSES = "SELECT uuid, status FROM taskapi_taskinfo"
BILL = "INSERT INTO faults_bill (run_id) SELECT id FROM taskapi_taskinfo WHERE uuid = %s RETURNING id"
LOCKED = "SELECT 1 FROM taskapi_taskinfo WHERE uuid = %s FOR UPDATE NOWAIT"


def statuses(stack: FaultStack) -> dict[str, str]:
    """The status of every run in the database, by uuid."""
    with stack.connect() as connection:
        return {str(uuid): status for uuid, status in connection.execute(STATUSES)}


def statuses_if_up(stack: FaultStack) -> dict[str, str]:
    """The same; nothing while PostgreSQL is down."""
    with suppress(psycopg.OperationalError):
        return statuses(stack)
    return {}


def try_to_bill(stack: FaultStack, uuid: str) -> str | None:
    """Let a row of the project point to the run: "billed", or "gone" if it was deleted; None if PostgreSQL is down."""
    try:
        with stack.connect() as connection:
            billed = connection.execute(BILL, [uuid]).fetchone()
    except psycopg.OperationalError:
        return None
    return "gone" if billed is None else "billed"


def is_locked(stack: FaultStack, uuid: str) -> bool:
    """Whether a transaction holds the run's row."""
    with stack.connect() as connection:
        try:
            connection.execute(LOCKED, [uuid])
        except psycopg.errors.LockNotAvailable:
            return True
    return False
