"""What a terminal shows of a run: its messages, and a bar below them if that can be drawn."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import IO, Any, Protocol

from django.core.management.base import OutputWrapper


@dataclass
class State:
    """What is shown of a run; `name` is that of its task."""

    name: str
    status: str = "pending"
    attempt: int = 0
    progress: int | None = None
    target: int | None = None

    @property
    def doing(self) -> str:
        """What it does, in a word or two."""
        if self.status != "pending":
            return self.status
        return "waits to be tried again" if self.attempt else "waits for a worker"


class Display(Protocol):
    """Shows a run, from `open` to `close`."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def show(self, state: State) -> None:
        """Show how far the run is."""

    def tell(self, text: str) -> None:
        """Print a line that stays."""


def as_text(value: Any) -> str:
    """A message or an output as a line: a string as it is, anything else as JSON; nothing that steers a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


class Silent:
    """Shows nothing."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def show(self, state: State) -> None:
        pass

    def tell(self, text: str) -> None:
        pass


class Plain(Silent):
    """Lines of text; in a terminal, the last of them says how far the run is."""

    def __init__(self, output: OutputWrapper) -> None:
        self._output = output
        self._live = output.isatty()
        self._line = ""

    def close(self) -> None:
        self._draw("")

    def show(self, state: State) -> None:
        of = "" if state.progress is None else f" {state.progress}"
        if of and state.target:
            of += f"/{state.target} ({min(100, 100 * state.progress // state.target)} %)"  # type: ignore[operator]  # `of` is not empty
        self._draw(f"{state.name} {state.doing}{of}")

    def tell(self, text: str) -> None:
        line, before = self._line, self._live and self._line
        if before:
            self._draw("")
        self._write(f"{text}\n")
        if before:
            self._draw(line)

    def _draw(self, line: str) -> None:
        """Put the line in the place of the last one."""
        if self._live and line != self._line:
            self._write(f"\r\x1b[K{line}")
            self._line = line

    def _write(self, text: str) -> None:
        self._output.write(text, style_func=str, ending="")
        self._output.flush()


class Rich(Silent):
    """A bar that moves, by the package `rich`; lines are printed above it."""

    def __init__(self, file: IO[str], colour: bool | None = None) -> None:
        from rich.console import Console  # | of an extra: it may not be there
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # |

        no_colour = None if colour is None else not colour
        self._console = Console(file=file, highlight=False, markup=False, emoji=False, no_color=no_colour)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._bar: Any = None
        self._attempt = 0  # of the bar

    def open(self) -> None:
        self._bars.start()

    def close(self) -> None:
        self._bars.stop()

    def show(self, state: State) -> None:
        description = f"{state.name} {state.doing}"
        if self._bar is None or state.attempt != self._attempt:  # a bar cannot lose its total
            if self._bar is not None:
                self._bars.remove_task(self._bar)
            self._bar, self._attempt = self._bars.add_task(description, total=None), state.attempt
        self._bars.update(self._bar, description=description, total=state.target or None, completed=state.progress or 0)

    def tell(self, text: str) -> None:
        self._bars.console.print(text, soft_wrap=True)


def has_rich() -> bool:
    """Whether the extra `cli` is installed."""
    try:
        import rich  # noqa: F401 - of an extra
    except ImportError:
        return False
    return True


def choose(output: OutputWrapper, *, verbosity: int, colour: bool | None) -> Display:
    """The best that can be done with this output."""
    if verbosity == 0:
        return Silent()
    if output.isatty() and has_rich():
        return Rich(sys.stderr, colour)
    return Plain(output)
