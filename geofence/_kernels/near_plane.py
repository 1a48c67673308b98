"""A quick distance that knows its own error, for ``near``: a plane with the terms that bend it.

From a position at latitude f, with parallel radius p and meridian radius M, to a place e = p * dlon to the
east and n = M * dlat to the north (metres), the squared chord through the ellipsoid is exactly

    dp^2 + dz^2 + 4 p p2 sin^2(dlon / 2)

with p2 the other parallel's radius, and (dp, dz) the chord of the meridian's arc. Both are expanded in n:

    n^2 (1 + a1 n + a2 n^2)  +  e^2 (1 + b1 n + b2 n^2 + b3 n^3)  -  l2 e^4

What is left out, with q = d / R: below 0.01 q^3 d from the next terms of M and p2, and below
0.4 q^4 d / cos^4 f from those of the sine. The nearest place of a piece is first sought on the plane, then
moved by one step of Newton's method; it is then at most d q^2 / cos^2 f beside the right one, which makes the
distance longer by less than q^4 d / cos^4 f. The distance as it is defined (geodesy.chord_to_piece2) ends its
search with a step of at most 3e-5 d, and rounds to 2e-9 m. ``error_m`` is several times the sum.

So a distance in whole millimetres is known from this unless it lies that near to the middle of two of them;
then, for two in a thousand pairs, the defined one decides. tests/geofence/test_zone_distance_quick.py holds
the quick way against the defined one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.geodesy import E2, MEAN_RADIUS_M, RADIANS_PER_E7, SEMI_MAJOR_M, sin_cos_near_zero

__all__ = ["COLUMNS", "FLAT_LAT", "LANES", "arc_of_chord2", "error_m", "fill_planes", "quick_chord2"]

FLAT_LAT = 750_000_000.0  # nearer to a pole the terms grow too fast
COLUMNS = 9
LANES = 8
HALF_TURN = 1_800_000_000.0
FULL_TURN = 3_600_000_000.0
LEAST_LENGTH2 = 1e-30


@njit(cache=True, nogil=True, error_model="numpy")
def fill_planes(lat_e7, count, planes):
    """The terms at ``count`` latitudes.

    lat_e7 : float64 (m,)          within +-FLAT_LAT, else what is written means nothing
    planes : float64 (COLUMNS, m)  written: metres a count of longitude and of latitude, a1, a2, b1, b2,
                                   b3, l2, and 1 / p
    """
    for i in range(count):
        # by halves, so that the polynomials of geodesy hold without asking for the quadrant
        r = 0.5 * RADIANS_PER_E7 * min(max(lat_e7[i], -FLAT_LAT), FLAT_LAT)
        s, c = sin_cos_near_zero(r)
        sine = 2.0 * s * c
        cosine = 1.0 - 2.0 * s * s
        w2 = 1.0 - E2 * sine * sine
        normal = SEMI_MAJOR_M / math.sqrt(w2)
        meridian = normal * (1.0 - E2) / w2
        parallel = normal * cosine
        per_m = 1.0 / meridian
        bend = meridian / parallel
        m1 = 3.0 * E2 * sine * cosine / w2
        m2 = 3.0 * E2 * (cosine * cosine - sine * sine) / w2 + 5.0 / 3.0 * m1 * m1
        planes[0, i] = parallel * RADIANS_PER_E7
        planes[1, i] = meridian * RADIANS_PER_E7
        planes[2, i] = m1 * per_m
        planes[3, i] = (0.25 * m1 * m1 + m2 / 3.0 - 1.0 / 12.0) * per_m * per_m
        planes[4, i] = -sine * bend * per_m
        planes[5, i] = -0.5 * (cosine + m1 * sine) * bend * per_m * per_m
        planes[6, i] = (sine * (1.0 - m2) - 2.0 * m1 * cosine) * bend / 6.0 * per_m * per_m * per_m
        planes[7, i] = 1.0 / (12.0 * parallel * parallel)
        planes[8, i] = 1.0 / parallel


@njit(cache=True, nogil=True, error_model="numpy")
def quick_chord2(border, first, stop, fx, fy, planes, j, chords2):
    """Squared chord, m2, from a position to the nearest place of consecutive pieces of a border, nearly.

    border      : float64 (4, p)  ax, ay, dx, dy of each piece (see geodesy.chord_to_piece2), and LANES more
                                  that say nothing
    first, stop : which pieces
    fx, fy      : float64         the position, 1e-7 degree, within +-180 degrees
    planes, j   : its column of what ``fill_planes`` wrote
    chords2     : float64 (.,)    scratch, room for the pieces and LANES more

    LLVM makes one loop over vectors of this, 25 ns for up to 8 pieces where they took 120 one by one: hence
    the columns, the unsigned index, no branch, and a multiple of LANES pieces, the surplus ones being left
    unread.
    """
    ax = border[0]
    ay = border[1]
    adx = border[2]
    ady = border[3]
    east = planes[0, j]
    north = planes[1, j]
    a1 = planes[2, j]
    a2 = planes[3, j]
    b1 = planes[4, j]
    b2 = planes[5, j]
    b3 = planes[6, j]
    l2 = planes[7, j]
    begin = np.uint64(first)
    count = stop - first
    for k in range((count + LANES - 1) // LANES * LANES):
        p = begin + np.uint64(k)
        ux = ax[p] - fx
        ux = ux - FULL_TURN if ux > HALF_TURN else ux
        ux = ux + FULL_TURN if ux < -HALF_TURN else ux
        ux *= east
        uy = (ay[p] - fy) * north
        vx = adx[p] * east
        vy = ady[p] * north
        length2 = vx * vx + vy * vy + LEAST_LENGTH2
        per_length2 = 1.0 / length2
        t = -(ux * vx + uy * vy) * per_length2
        t = t if t > 0.0 else 0.0  # noqa: FURB136 - a select; LLVM makes vectors of it
        t = t if t < 1.0 else 1.0  # noqa: FURB136 - a select; LLVM makes vectors of it
        e = ux + t * vx
        n = uy + t * vy
        e2 = e * e
        d2 = n * n * (1.0 + n * (a1 + a2 * n)) + e2 * (1.0 + n * (b1 + n * (b2 + n * b3))) * (1.0 - l2 * e2)
        slope = vy * (n * (1.0 + 1.5 * a1 * n) + e2 * (0.5 * b1 + b2 * n)) + vx * e * (
            1.0 + n * (b1 + b2 * n)
        )
        moved = t - slope * per_length2
        moved = moved if moved > 0.0 else 0.0  # noqa: FURB136 - a select; LLVM makes vectors of it
        moved = moved if moved < 1.0 else 1.0  # noqa: FURB136 - a select; LLVM makes vectors of it
        move = moved - t
        bent = length2 + vx * vx * b1 * n + vy * (3.0 * a1 * n * vy + 2.0 * b1 * e * vx)
        chords2[k] = d2 + move * (2.0 * slope + move * bent)
    least = math.inf
    for k in range(count):
        least = min(least, chords2[k])
    return max(0.0, least)


@njit(cache=True, nogil=True)
def arc_of_chord2(chord2):
    """The distance along the surface, metres, as geodesy.arc_m; for up to 50 km. The next term is
    0.005 q^4 d.
    """
    return math.sqrt(chord2) * (1.0 + chord2 * (1.0 / (24.0 * MEAN_RADIUS_M * MEAN_RADIUS_M)))


@njit(cache=True, nogil=True)
def error_m(metres, per_parallel):
    """How far a distance of these functions is from the defined one at most."""
    q = metres * per_parallel
    return 2e-7 + metres * (1e-9 + q * q * q * (0.02 + 5.0 * q))
