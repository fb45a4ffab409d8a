"""The table as an SVG: each figure has a bar for each stack, and a line at what ours must reach."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks.figures import FIGURES, Figure, shown
from benchmarks.report import rounds_of
from benchmarks.session import Results
from benchmarks.stacks import OURS, Stack

WIDTH, MARGIN = 760, 16  # pixels, as are the next two
NAMES = 264  # for the names of the stacks
BARS = 380  # for the longest bar; its value follows it
ROW, BAR, HEAD, GAP = 18, 12, 26, 14
OURS_COLOR, PEER_COLOR, LINE_COLOR = "#2a7f62", "#a9b4bd", "#c0392b"


def drawn(stacks: list[Stack], results: Results) -> str:
    parts: list[str] = []
    top = MARGIN
    for figure in filter(lambda figure: figure.charted, FIGURES):
        bars = [(stack, figure.value(rounds_of(results, stack, figure))) for stack in stacks]
        measured = [(stack, value) for stack, value in bars if value is not None]
        if len(measured) > 1:
            parts += _panel(figure, measured, top)
            top += HEAD + ROW * len(measured) + GAP
    letters = "font: 12px system-ui, sans-serif; fill: #222; stroke: #fff; stroke-width: 3px; paint-order: stroke"
    style = f"text {{ {letters} }} .head {{ font-weight: 600 }}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">',
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(figure: Figure, bars: list[tuple[Stack, float]], top: int) -> Iterator[str]:
    bound = figure.at_most or figure.at_least
    longest = max([value for _, value in bars] + ([bound] if bound else []))
    title = figure.title + (f" (here, wanted: {figure.bound})" if bound else "")
    yield _text(MARGIN, top + 14, title, "head")
    first = top + HEAD
    if bound:
        x = NAMES + bound / longest * BARS
        y = first - 3
        end = first + ROW * len(bars) - 3
        yield f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{end}" stroke="{LINE_COLOR}" stroke-dasharray="3 2"/>'
    for number, (stack, value) in enumerate(bars):
        y = first + number * ROW
        width = value / longest * BARS
        color = OURS_COLOR if stack is OURS else PEER_COLOR
        yield _text(MARGIN, y + 10, stack.title)
        yield f'<rect x="{NAMES}" y="{y}" width="{max(width, 1):.1f}" height="{BAR}" fill="{color}"/>'
        yield _text(NAMES + width + 6, y + 10, f"{shown(value)} {figure.unit}")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{style}>{escape(text.replace("`", ""))}</text>'
