"""Fixtures for the samples of the documentation."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapi.tasks import registry
from tests.docs.pages import fences


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder with the app of getting-started.md, from which samples can import."""
    for fence in fences("docs/getting-started.md", "python"):
        for name, code in fence.files.items():
            if name.startswith("myapp/"):
                write(tmp_path / name, code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("myapp", "mysite")]:
        del sys.modules[name]
    registry._tasks.cache_clear()  # the next page has other tasks at the same paths


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
