"""On which side of a polygon's border a position lies, from the cell index."""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.exact import INSIDE, OUTSIDE
from geofence._kernels.lists import IS_GRID, IS_ZONE
from geofence._kernels.raster import CIRCLE, COVER, EDGES, reference_state

__all__ = ["side_from_index"]

FULL_TURN = 3_600_000_000
ALIAS_FROM = (
    1_460_000_000  # a longitude this far from 0 has a second name, one turn away, within +-214 degrees
)


@njit(cache=True, nogil=True)
def _side_at(zone, x, y, cells, lists, kx, ky, col0, row0, cols, rows):
    col = (x >> kx) - col0
    row = (y >> ky) - row0
    if col < 0 or col >= cols or row < 0 or row >= rows:
        return OUTSIDE
    w = cells[row * cols + col]
    while w & 3 == IS_GRID:
        g = w >> 2
        col = (x >> lists[g + 1]) & ((1 << lists[g + 3]) - 1)
        row = (y >> lists[g + 2]) & ((1 << lists[g + 4]) - 1)
        w = cells[lists[g] + (row << lists[g + 3]) + col]
    if w == 0:
        return OUTSIDE
    if w & 3 == IS_ZONE:
        return INSIDE if w >> 2 == zone else OUTSIDE
    at = w >> 2
    count = lists[at]
    at += 1
    for _ in range(count):
        head = lists[at]
        kind = head & 3
        at += 1
        if head >> 2 == zone:
            if kind == COVER:
                return INSIDE
            if kind == EDGES:
                return _state(lists, at, x, y)
            return -1
        if kind == EDGES:
            at += 3 + 4 * (lists[at] >> 1)
        elif kind == CIRCLE:
            at += 3
    return OUTSIDE


@njit(cache=True, nogil=True)
def _state(lists, at, x, y):
    """reference_state() of the edges in a list."""
    count = lists[at] >> 1
    edges = lists[at + 3 : at + 3 + 4 * count].reshape(count, 4)
    pool = np.arange(count)
    return reference_state(
        edges, pool, 0, count, np.int64(lists[at + 1]), np.int64(lists[at + 2]), lists[at] & 1, x, y
    )


@njit(cache=True, nogil=True)
def side_from_index(zone, x, y, cells, lists, kx, ky, col0, row0, cols, rows):
    """OUTSIDE, BOUNDARY or INSIDE of a polygon, from a cell index without buffers; -1: it must be asked.

    A position past +-146 degrees is looked up under its other longitude as well.
    """
    found = _side_at(zone, x, y, cells, lists, kx, ky, col0, row0, cols, rows)
    if found == OUTSIDE and abs(x) >= ALIAS_FROM:
        other = x - FULL_TURN if x > 0 else x + FULL_TURN
        found = _side_at(zone, other, y, cells, lists, kx, ky, col0, row0, cols, rows)
    return found
