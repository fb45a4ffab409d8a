"""The thread that renews the leases of a host: a busy event loop or a busy task cannot hold it up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from taskapi.protocol.states import Execution
from taskapi.store.database import forget_queries, keep_connections
from taskapi.store.silence import watching
from taskapi.workers.upkeep import Renewal, renew

logger = logging.getLogger(__name__)

RENEW_INTERVAL = 3.0  # seconds: three tries within a lease


class LeaseKeeper(threading.Thread):
    """Renews the leases of `worker` until it is stopped.

    After each renewal it calls `renewed`, on its own thread, with the attempts that `executing` gave before the
    renewal, and with what the renewal found.
    """

    def __init__(
        self,
        worker: str,
        executing: Callable[[], set[Execution]],
        renewed: Callable[[set[Execution], Renewal], object],
    ) -> None:
        super().__init__(name="taskapi-leases", daemon=True)
        self._worker = worker
        self._executing = executing
        self._renewed = renewed
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(RENEW_INTERVAL):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - mostly the database is away, and no other worker can take the runs
                logger.warning("The leases could not be renewed: %r; next try in %g s.", error, RENEW_INTERVAL)
            forget_queries()
        connections.close_all()

    def _renew(self) -> None:
        executing = self._executing()
        if executing:
            watching()(keep_connections)()
            self._renewed(executing, renew(self._worker, executing))

    def stop(self) -> None:
        self._stopping.set()
