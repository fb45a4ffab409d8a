"""What belongs to one event loop: made when it is first asked for, and gone with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PLACE = "_taskapi"  # the attribute of a loop that holds what belongs to it


def of_loop(make: Callable[[], T]) -> T:
    """The running event loop's own, which `make` makes.

    The loop itself holds it. A dict of them by their loops would outlive these, even one with weak keys: what belongs
    to a loop refers to it.
    """
    loop = asyncio.get_running_loop()
    kept: dict[Callable[[], T], T] = vars(loop).setdefault(PLACE, {})
    if make not in kept:
        kept[make] = make()
    return kept[make]
