"""Objects of which each event loop has one of its own: made when first asked for, and gone with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PLACE = "_taskapi"  # the attribute of a loop that holds its objects


def one_per_loop(make: Callable[[], T]) -> T:
    """The running event loop's object of this kind, which `make` makes if there is none yet.

    The loop itself holds it. A dict by loops would outlive the loops, even one with weak keys: the objects refer to
    their loop.
    """
    loop = asyncio.get_running_loop()
    kept: dict[Callable[[], T], T] = vars(loop).setdefault(PLACE, {})
    if make not in kept:
        kept[make] = make()
    return kept[make]
