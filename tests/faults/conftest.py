"""Stacks for faults. `stack` is shared by all tests with the same database, and is repaired before each of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.faults.stack import FaultStack, Rest
from tests.support.databases import Databases

pytest.register_assert_rewrite(
    *(
        f"tests.faults.{name}"
        for name in (
            "account",
            "executions",
            "follower",
            "last_faults",
            "pages",
            "poller",
            "promises",
            "rows",
            "storm",
            "striking",
        )
    )
)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Databases of these tests alone, which restart PostgreSQL."""
    databases = Databases()
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def make_stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., FaultStack]]:
    """Gives the stack with this database and this channel layer; each is made once."""
    with ExitStack() as running:

        @cache
        def make(kind: str, layer: str = "default") -> FaultStack:
            directory = tmp_path_factory.mktemp(f"faults-{kind}-{layer}")
            return running.enter_context(FaultStack(databases, kind, directory, layer))

        yield make


@pytest.fixture(params=["postgres", pytest.param("sqlite", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, make_stack: Callable[..., FaultStack]) -> FaultStack:
    """A stack whose servers all run; `parametrize("stack", [kind], indirect=True)` restricts it to one database."""
    options = request.param if isinstance(request.param, tuple) else (request.param,)
    stack = make_stack(*options)
    stack.heal()
    return stack


@pytest.fixture
def rest(stack: FaultStack) -> Iterator[Rest]:
    with stack.client() as client:
        yield Rest(client)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The path of a file that tasks wait for; it is made after the test at the latest."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()
