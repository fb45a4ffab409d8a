"""Ours beside an earlier revision: both are measured in turns, and the ratio of each figure is shown.

A machine is faster in one minute than in the next. So a ratio compares two figures of the same round, measured one
after the other, and the median of the rounds counts. A figure that seems too bad is measured in more rounds, on both.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.environments import FOLDER, ROOT
from benchmarks.figures import FIGURES, Figure
from benchmarks.session import Results, Session
from benchmarks.stacks import OURS, Stack

NAME = "before"
WORSE = 1.05  # times: no figure may be that much worse than before
MORE_ROUNDS = 2  # times as many again, for a figure that seems to be worse


def stack_of(revision: str) -> Stack:
    """Ours with the package of this revision, and with the servers, the project and the environment of now."""
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    return replace(
        OURS,
        name=NAME,
        title=f"before: {commit[:10]}",
        configured=f"As here, with the package as it was in {commit[:10]}, and its own migrations. The project, the "
        "environment and the client are those that are here.",
        source=_checked_out(commit),
    )


def measure_again(session: Session, before: Stack, rounds: int, only: list[str] | None) -> None:
    """Measure more rounds of the measures with a figure that seems too bad."""
    measures = {figure.measure for figure in FIGURES if is_worse(figure, session.results)}
    if measures and rounds:
        session.measure([OURS, before], MORE_ROUNDS * rounds, measures & set(only or OURS.measures))


def ratios(figure: Figure, results: Results) -> list[float]:
    """The figure now, divided by the figure before, for each round that has both."""
    found = []
    for here, before in zip(
        *(results.get(name, {}).get(figure.measure, []) for name in (OURS.name, NAME)), strict=False
    ):
        values = here.get(figure.key, math.nan), before.get(figure.key, math.nan)
        if all(map(math.isfinite, values)) and values[1]:
            found.append(values[0] / values[1])
    return found


def worse_by(figure: Figure, results: Results) -> list[float]:
    """How many times worse the figure is than before, in each round."""
    found = ratios(figure, results)
    return [1 / ratio if ratio else math.inf for ratio in found] if figure.more_is_better else found


def is_worse(figure: Figure, results: Results) -> bool:
    found = worse_by(figure, results)
    return bool(found) and median(found) > WORSE


def told(results: Results) -> list[str]:
    """The figures that are too bad, in Markdown, with the range of their rounds."""
    lines = [
        _told(figure, found) for figure in FIGURES if is_worse(figure, results) and (found := worse_by(figure, results))
    ]
    head = (
        "The column `here / before` is the median of the rounds; in each round the two were measured one after the "
        f"other. No figure may be worse than {WORSE} times what it was; one that seems worse gets more rounds."
    )
    return [head, "", *(lines or [f"None of them is worse than {WORSE} times what it was."])]


def _told(figure: Figure, found: list[float]) -> str:
    better = sum(ratio < 1 for ratio in found)
    sure = f"; in {better} of them it was better than before, so this may be noise" if better else ""
    rounds = f"{min(found):.2f} to {max(found):.2f} in {len(found)} rounds{sure}"
    return f"- **{figure.title}** is {median(found):.2f} times worse than before ({rounds})."


def _checked_out(commit: str) -> Path:
    """A folder with the package of this commit, and nothing else to import."""
    folder = FOLDER / f"{NAME}-{commit[:10]}"
    stamp = folder / ".made"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "taskapi"))) as archive:
            archive.extractall(folder, filter="data")
        stamp.touch()
    return folder


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True).stdout  # noqa: S607
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"--before takes a revision of this repository: {error.stderr.decode().strip()}") from None
