"""Stacks for faults. `stack` is shared by the tests of a kind of database, and whole again before each."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.faults.stack import FaultStack, Rest
from tests.support.databases import Databases

pytest.register_assert_rewrite(
    *(f"tests.faults.{name}" for name in ("executions", "follower", "pages", "promises", "storm"))
)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL that no other test uses: here it is restarted."""
    databases = Databases()
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def make_stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., FaultStack]]:
    """Gives the stack of a kind of database and of channel layer, which is made once."""
    with ExitStack() as running:

        @cache
        def make(kind: str, layer: str = "default") -> FaultStack:
            directory = tmp_path_factory.mktemp(f"faults-{kind}-{layer}")
            return running.enter_context(FaultStack(databases, kind, directory, layer))

        yield make


@pytest.fixture(params=["postgres", pytest.param("sqlite", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, make_stack: Callable[..., FaultStack]) -> FaultStack:
    """A whole stack; where one database is enough, `parametrize("stack", [kind], indirect=True)` says which."""
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
    """A file that tasks wait for; it is there after the test, whatever became of it."""
    gate = tmp_path / "gate"
    yield gate
    gate.touch()
