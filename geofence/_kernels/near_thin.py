"""Which pieces of a border can be the nearest somewhere in a block of cells.

Pieces and cells are looked at in space, so poles and the antimeridian are nothing special:

- A piece lies within its sag of the straight segment between its ends, a cell within its sag of the hull of
  its four corners. A curve strays from its chord by at most an eighth of the square of its length in the
  parameter times its second derivative; here that is R (|dlon| + |dlat|)^2 / 8 for a piece, and
  R (dlon^2 cos lat + dlat^2) / 8 for a cell.
- The distance to a segment is convex. So over the hull it is at most what it is at a corner, and at least
  what its tangent at the middle says, which is linear. Their difference is concave: a piece whose tangent is
  above another's distance at all four corners is farther away than that one everywhere in the cell. It goes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.geodesy import RADIANS_PER_E7, ecef
from geofence._kernels.raster import SLACK_M

__all__ = ["QUARTER_TURN", "corners_of", "segment_of", "thin"]

MAX_RADIUS_M = 6_466_000.0  # above every radius of curvature and the rate at which the meridian's changes
QUARTER_TURN = 900_000_000
MAX_PAIRWISE = 96  # above it pieces are compared with the likeliest at the corners only


@njit(cache=True, nogil=True)
def corners_of(c0, r0, c1, r1, kx, ky, col0, row0, corners):
    """Write the corners of a block of cells and their mean, metres in space; returns the block's sag."""
    west = float((c0 + col0) << kx)
    east = float((c1 + col0) << kx)
    south = max(float((r0 + row0) << ky), -float(QUARTER_TURN))
    north = min(float((r1 + row0) << ky), float(QUARTER_TURN))
    corners[0] = ecef(west, south)
    corners[1] = ecef(east, south)
    corners[2] = ecef(west, north)
    corners[3] = ecef(east, north)
    for k in range(3):
        corners[4, k] = 0.25 * (corners[0, k] + corners[1, k] + corners[2, k] + corners[3, k])
    nearest_equator = 0.0 if south <= 0.0 <= north else min(abs(south), abs(north))
    widest = math.cos(nearest_equator * RADIANS_PER_E7) + 1e-9
    dlon = (east - west) * RADIANS_PER_E7
    dlat = (north - south) * RADIANS_PER_E7
    return MAX_RADIUS_M / 8.0 * (dlon * dlon * widest + dlat * dlat)


@njit(cache=True, nogil=True)
def segment_of(pieces, p, segments, i):
    """Write a piece in space: an end, from there to the other, one over the square of that length, and its
    sag.
    """
    ax, ay, az = ecef(pieces[p, 0], pieces[p, 1])
    bx, by, bz = ecef(pieces[p, 0] + pieces[p, 2], pieces[p, 1] + pieces[p, 3])
    dx = bx - ax
    dy = by - ay
    dz = bz - az
    length2 = dx * dx + dy * dy + dz * dz
    turn = (abs(pieces[p, 2]) + abs(pieces[p, 3])) * RADIANS_PER_E7
    segments[i, 0] = ax
    segments[i, 1] = ay
    segments[i, 2] = az
    segments[i, 3] = dx
    segments[i, 4] = dy
    segments[i, 5] = dz
    segments[i, 6] = 1.0 / length2 if length2 > 0.0 else 0.0
    segments[i, 7] = MAX_RADIUS_M / 8.0 * turn * turn


@njit(cache=True, nogil=True)
def _from_segment(segments, i, x, y, z):
    """The vector from the nearest place of a segment to a point."""
    ux = x - segments[i, 0]
    uy = y - segments[i, 1]
    uz = z - segments[i, 2]
    dx = segments[i, 3]
    dy = segments[i, 4]
    dz = segments[i, 5]
    t = min(1.0, max(0.0, (ux * dx + uy * dy + uz * dz) * segments[i, 6]))
    return ux - t * dx, uy - t * dy, uz - t * dz


@njit(cache=True, nogil=True)
def thin(segments, arena, begin, count, to, corners, sag, bounds, thoroughly):
    """Copy, within the arena, the numbers of the segments that can be the nearest somewhere in a block.

    begin, count : those to look at; to: where they are copied to, from low to high
    corners, sag : of the block, see ``corners_of``
    bounds       : float64 (., 9), scratch: at each corner at least and at most the distance
    thoroughly   : compare all with all, not only with the likeliest

    Returns how many are left, and at least and at most the distance from the block's hull to the nearest, or
    farthest, of them.
    """
    mx, my, mz = corners[4, 0], corners[4, 1], corners[4, 2]
    least = math.inf
    nearest = 0
    for i in range(count):
        s = arena[begin + i]
        gx, gy, gz = _from_segment(segments, s, mx, my, mz)
        d = math.sqrt(gx * gx + gy * gy + gz * gz)
        if d + segments[s, 7] < least:
            least = d + segments[s, 7]
            nearest = s
        if d > 0.0:
            gx /= d
            gy /= d
            gz /= d
        for k in range(4):
            bounds[i, k] = (
                d
                - segments[s, 7]
                + gx * (corners[k, 0] - mx)
                + gy * (corners[k, 1] - my)
                + gz * (corners[k, 2] - mz)
            )
    margin = 2.0 * sag + SLACK_M + 1e-8 * least
    best = np.empty(4, np.float64)
    likeliest = np.empty(4, np.int64)
    for k in range(4):
        ux, uy, uz = _from_segment(segments, nearest, corners[k, 0], corners[k, 1], corners[k, 2])
        best[k] = math.sqrt(ux * ux + uy * uy + uz * uz) + segments[nearest, 7] + margin
        likeliest[k] = -1
    left = 0
    for i in range(count):
        if (
            bounds[i, 0] > best[0]
            and bounds[i, 1] > best[1]
            and bounds[i, 2] > best[2]
            and bounds[i, 3] > best[3]
        ):
            continue
        s = arena[begin + i]
        arena[to + left] = s
        for k in range(4):
            ux, uy, uz = _from_segment(segments, s, corners[k, 0], corners[k, 1], corners[k, 2])
            bounds[left, k] = bounds[i, k]
            bounds[left, 4 + k] = math.sqrt(ux * ux + uy * uy + uz * uz) + segments[s, 7] + margin
            if likeliest[k] < 0 or bounds[left, 4 + k] < bounds[likeliest[k], 4 + k]:
                likeliest[k] = left
        left += 1
    everyone = thoroughly and left <= MAX_PAIRWISE
    rivals = left if everyone else 4
    kept = 0
    least = math.inf
    most = 0.0
    for i in range(left):
        beaten = False
        for j in range(rivals):
            r = j if everyone else likeliest[j]
            if (
                bounds[i, 0] > bounds[r, 4]
                and bounds[i, 1] > bounds[r, 5]
                and bounds[i, 2] > bounds[r, 6]
                and bounds[i, 3] > bounds[r, 7]
            ):
                beaten = True
                break
        if beaten:
            continue
        arena[to + kept] = arena[to + i]
        kept += 1
        least = min(least, bounds[i, 0], bounds[i, 1], bounds[i, 2], bounds[i, 3])
        most = max(most, bounds[i, 4], bounds[i, 5], bounds[i, 6], bounds[i, 7])
    return kept, least, most
