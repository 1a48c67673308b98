"""The place key of a ping: a square of 0.01 degree, so that a question about a place reads few rows."""

from __future__ import annotations

import math
from typing import Final

from geofence import HALF_TURN_E7, QUARTER_TURN_E7

__all__ = ["CELL_E7", "COLUMNS_OF_CELLS", "FIRST_COLUMN", "FIRST_ROW", "METRES_PER_DEGREE", "cells_around"]

CELL_E7: Final = 100_000  # 0.01 degree: 1.1 km, about the size of the question "who was near here"
COLUMNS_OF_CELLS: Final = 40_000  # a row of cells, with room for longitudes up to +-200 degrees
FIRST_ROW: Final = QUARTER_TURN_E7 // CELL_E7
FIRST_COLUMN: Final = COLUMNS_OF_CELLS // 2
METRES_PER_DEGREE: Final = 110_574.0  # of latitude, where it is shortest: a reach is never too small


def cells_around(lat_e7: int, lon_e7: int, radius_m: float) -> list[int]:
    """The cells that a circle can touch, across the antimeridian too.

    >>> cells_around(350_050_000, -808_450_000, 100.0)
    [500031915]
    """
    reach_e7 = math.ceil(radius_m / METRES_PER_DEGREE * 1e7)
    south, north = max(lat_e7 - reach_e7, -QUARTER_TURN_E7), min(lat_e7 + reach_e7, QUARTER_TURN_E7)
    narrowest = math.cos(math.radians(max(abs(south), abs(north)) / 1e7))
    reach_lon_e7 = HALF_TURN_E7 if narrowest < 1e-3 else min(math.ceil(reach_e7 / narrowest), HALF_TURN_E7)
    columns: set[int] = set()
    for turn in (-2 * HALF_TURN_E7, 0, 2 * HALF_TURN_E7):
        west = max(lon_e7 + turn - reach_lon_e7, -HALF_TURN_E7)
        east = min(lon_e7 + turn + reach_lon_e7, HALF_TURN_E7)
        columns.update(range(west // CELL_E7, east // CELL_E7 + 1) if west <= east else ())
    return sorted(
        (row + FIRST_ROW) * COLUMNS_OF_CELLS + column + FIRST_COLUMN
        for row in range(south // CELL_E7, north // CELL_E7 + 1)
        for column in columns
    )
