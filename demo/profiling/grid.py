"""Counts rows by place on Earth, for tables with coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from demo.profiling.columns import Column, NumberColumn, to_number

GRID_DEGREES = 2.5  # side of a cell: 144 across the world, about two pixels each on a phone


class Grid:
    """The number of rows in each cell of GRID_DEGREES; cells count from the north-west corner."""

    NAMES = (("lat", "lon"), ("lat", "lng"), ("latitude", "longitude"))

    def __init__(self, latitude: int, longitude: int) -> None:
        self.latitude = latitude
        self.longitude = longitude
        self.cells: Counter[tuple[int, int]] = Counter()

    @classmethod
    def over(cls, columns: Sequence[Column]) -> Grid | None:
        """Return a grid if the table has columns named as latitude and longitude, else None."""
        numbers = {column.name.lower(): i for i, column in enumerate(columns) if isinstance(column, NumberColumn)}
        pairs = (pair for pair in cls.NAMES if numbers.keys() >= set(pair))
        return next((cls(numbers[latitude], numbers[longitude]) for latitude, longitude in pairs), None)

    def add(self, cells: Sequence[str]) -> None:
        latitude, longitude = to_number(cells[self.latitude].strip()), to_number(cells[self.longitude].strip())
        if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
            return
        x = min(longitude + 180, 359.99) // GRID_DEGREES
        y = min(90 - latitude, 179.99) // GRID_DEGREES
        self.cells[int(x), int(y)] += 1

    def summary(self) -> dict[str, Any]:
        """Return each cell that has rows, as [x, y, count]."""
        return {"degrees": GRID_DEGREES, "cells": [[x, y, count] for (x, y), count in sorted(self.cells.items())]}
