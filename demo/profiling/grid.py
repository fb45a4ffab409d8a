"""Counts rows by place on Earth, for tables with coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from demo.profiling.columns import Column, NumberColumn

GRID_DEGREES = 2.5  # side of a cell: 144 across the world, about two pixels each on a phone


class Grid:
    """The number of rows in each cell of GRID_DEGREES; cells count from the north-west corner."""

    NAMES = (("lat", "lon"), ("lat", "lng"), ("latitude", "longitude"))

    def __init__(self, latitude: int, longitude: int, columns: tuple[NumberColumn, NumberColumn]) -> None:
        self.latitude = latitude
        self.longitude = longitude
        self.columns = columns
        self.cells: Counter[tuple[int, int]] = Counter()

    @classmethod
    def over(cls, columns: Sequence[Column[Any]]) -> Grid | None:
        """Return a grid if the table has columns named as latitude and longitude, else None."""
        numbers = {
            column.name.lower(): (i, column) for i, column in enumerate(columns) if isinstance(column, NumberColumn)
        }
        for names in cls.NAMES:
            if numbers.keys() >= set(names):
                (latitude, north), (longitude, east) = (numbers[name] for name in names)
                return cls(latitude, longitude, (north, east))
        return None

    def add(self, columns: Sequence[Sequence[str]]) -> None:
        """Add some rows, as the cells of each column."""
        given = zip(map(str.strip, columns[self.latitude]), map(str.strip, columns[self.longitude]), strict=True)
        pairs = [pair for pair in given if all(pair)]
        if not pairs:
            return
        latitudes, longitudes = (
            column.convert(cells) for column, cells in zip(self.columns, zip(*pairs, strict=True), strict=True)
        )
        self.cells.update(
            (int(min(longitude + 180, 359.99) // GRID_DEGREES), int(min(90 - latitude, 179.99) // GRID_DEGREES))
            for latitude, longitude in zip(latitudes, longitudes, strict=True)
            if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180
        )

    def summary(self) -> dict[str, Any]:
        """Return each cell that has rows, as [x, y, count]."""
        return {"degrees": GRID_DEGREES, "cells": [[x, y, count] for (x, y), count in sorted(self.cells.items())]}
