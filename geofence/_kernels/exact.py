"""Exact predicates on the 1e-7 degree grid: integers only, so every machine answers alike.

Why nothing overflows int64: longitudes lie in +-2.14e9 and latitudes in +-0.9e9, so a difference of
two longitudes is at most 4.28e9 and of two latitudes 1.8e9. Every product below has one factor of each
kind: at most 7.71e18, below 2**63 = 9.22e18. The *difference* of two such products may not fit, so
they are compared, never subtracted.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["BOUNDARY", "INSIDE", "OUTSIDE", "locate", "segments_touch", "side"]

OUTSIDE = 0
BOUNDARY = 1
INSIDE = 2


@njit(cache=True, nogil=True, inline="always")
def side(ax, ay, bx, by, px, py):
    """Which side of the line a->b the point p lies on: 1 left, 0 on it, -1 right. All int64."""
    left = (bx - ax) * (py - ay)
    right = (px - ax) * (by - ay)
    return int(left > right) - int(left < right)


@njit(cache=True, nogil=True)
def locate(edges, first, last, x, y):
    """Where a point lies with respect to closed rings: OUTSIDE, BOUNDARY or INSIDE.

    edges       : int32 (m, 4)  ax, ay, bx, by of each edge, 1e-7 degree; any order, even-odd rule
    first, last : the rings' edges are edges[first:last]
    x, y        : int64         the point, 1e-7 degree

    Counts the edges that a ray to the east crosses. An edge owns its lower end and not its upper one, so
    a vertex on the ray counts once where the border passes through and twice or never where it turns back.
    """
    inside = False
    for e in range(first, last):
        ax = np.int64(edges[e, 0])
        ay = np.int64(edges[e, 1])
        bx = np.int64(edges[e, 2])
        by = np.int64(edges[e, 3])
        if ay > by:
            ax, ay, bx, by = bx, by, ax, ay
        if y < ay or y > by:
            continue
        if ay == by:
            if min(ax, bx) <= x <= max(ax, bx):
                return BOUNDARY
            continue
        s = side(ax, ay, bx, by, x, y)
        if s == 0:
            return BOUNDARY
        if y < by and s > 0:
            inside = not inside
    return INSIDE if inside else OUTSIDE


@njit(cache=True, nogil=True)
def segments_touch(ax, ay, bx, by, cx, cy, dx, dy):
    """Whether two closed segments share a point; either may be a single point. All int64.

    The caller has made sure that both lie within one frame of 428 degrees (see the module's proof).
    """
    if max(ax, bx) < min(cx, dx) or max(cx, dx) < min(ax, bx):
        return False
    if max(ay, by) < min(cy, dy) or max(cy, dy) < min(ay, by):
        return False
    # With boxes that overlap, two collinear segments touch; others do when each straddles the other's line.
    c = side(ax, ay, bx, by, cx, cy)
    d = side(ax, ay, bx, by, dx, dy)
    if c * d > 0:
        return False
    a = side(cx, cy, dx, dy, ax, ay)
    b = side(cx, cy, dx, dy, bx, by)
    return a * b <= 0
