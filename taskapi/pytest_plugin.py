"""The fixture of taskapi.testing, for pytest. Pytest imports this before Django has settings: so it imports nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from taskapi.testing import worker


@pytest.fixture
def taskapi_worker(transactional_db: None) -> Iterator[worker]:
    """A worker in this process, which executes the runs that the test starts; see `taskapi.testing.worker`.

    It sees only what is committed: `transactional_db`, of pytest-django, is what TransactionTestCase is to Django.
    """
    from taskapi.testing import worker  # Django has settings now

    with worker() as working:
        yield working
