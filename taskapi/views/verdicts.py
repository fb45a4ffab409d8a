"""Whether a caller may do something, where a list leaves out what the caller may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from taskapi.runs.refusals import REFUSALS

P = ParamSpec("P")


def passes(check: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Whether a check of REST framework refuses nothing."""
    try:
        check(*args, **kwargs)
    except REFUSALS:
        return False
    return True
