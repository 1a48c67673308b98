"""On which side of a polygon's border a position lies, from the cell index."""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.cover import parity
from geofence._kernels.exact import BOUNDARY, INSIDE, OUTSIDE, side
from geofence._kernels.lists import CHAIN, NODE, NODE_BITS, SET
from geofence._kernels.raster import CIRCLE, EDGES

__all__ = ["side_from_index"]

FULL_TURN = 3_600_000_000
ALIAS_FROM = (
    1_460_000_000  # a longitude this far from 0 has a second name, one turn away, within +-214 degrees
)
MUST_ASK = -1


@njit(cache=True, nogil=True)
def _has(words, at, zone):
    """Whether the set at a place has a zone."""
    for k in range(at + 1, at + 1 + words[at]):
        if words[k] >= zone:
            return words[k] == zone
    return False


@njit(cache=True, nogil=True)
def _in_record(words, at, zone, x, y):
    """Of a MIXED record."""
    if _has(words, words[at], zone):
        return INSIDE
    count = words[at + 1]
    at += 2
    for _ in range(count):
        kind = words[at] & 3
        number = words[at] >> 2
        at += 1
        if kind == CIRCLE:
            if number == zone:
                return MUST_ASK
            at += 2
            continue
        n = words[at] >> 1
        if number == zone:
            if kind != EDGES:
                return MUST_ASK
            return parity(
                words,
                at + 3,
                n,
                np.int64(words[at + 1]),
                np.int64(words[at + 2]),
                np.int64(words[at] & 1),
                x,
                y,
            )
        at += 1
        if n > 0:
            at += 2 + 4 * n
    return OUTSIDE


@njit(cache=True, nogil=True)
def _side_at(zone, x, y, cells, words, kx, ky, col0, row0, cols, rows):
    col = (x >> kx) - col0
    row = (y >> ky) - row0
    if col < 0 or col >= cols or row < 0 or row >= rows:
        return OUTSIDE
    mask = (1 << NODE_BITS) - 1
    w = np.int64(cells[row * cols + col])
    while w & 3 == NODE:
        kx -= NODE_BITS
        ky -= NODE_BITS
        w = np.int64(words[(w >> 2) + ((((y >> ky) & mask) << NODE_BITS) | ((x >> kx) & mask))])
    at = w >> 2
    if w & 3 == SET:
        return INSIDE if _has(words, at, zone) else OUTSIDE
    if w & 3 != CHAIN:
        return _in_record(words, at, zone, x, y)
    n = words[at]
    if n == 1:
        outcome = 1 + side(
            np.int64(words[at + 4]),
            np.int64(words[at + 5]),
            np.int64(words[at + 6]),
            np.int64(words[at + 7]),
            x,
            y,
        )
    else:
        outcome = parity(
            words, at + 6, n, np.int64(words[at + 4]), np.int64(words[at + 5]), np.int64(1), x, y
        )
    if outcome != BOUNDARY:
        return INSIDE if _has(words, np.int64(words[at + 1 + outcome]) >> 2, zone) else OUTSIDE
    flipped = _has(words, np.int64(words[at + 1]) >> 2, zone)
    same = _has(words, np.int64(words[at + 3]) >> 2, zone)
    if flipped and same:  # the border is another zone's
        return INSIDE
    return BOUNDARY if flipped or same else OUTSIDE


@njit(cache=True, nogil=True)
def side_from_index(zone, x, y, cells, words, kx, ky, col0, row0, cols, rows):
    """OUTSIDE, BOUNDARY or INSIDE of a polygon, from a cell index without buffers; -1: it must be asked.

    cells, words : int32, the top grid's words and all words, see geofence._kernels.lists
    kx .. rows   : the top grid

    A position past +-146 degrees is looked up under its other longitude as well.
    """
    found = _side_at(zone, x, y, cells, words, kx, ky, col0, row0, cols, rows)
    if found == OUTSIDE and abs(x) >= ALIAS_FROM:
        other = x - FULL_TURN if x > 0 else x + FULL_TURN
        found = _side_at(zone, other, y, cells, words, kx, ky, col0, row0, cols, rows)
    return found
