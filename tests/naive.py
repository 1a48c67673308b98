"""A slow, obvious oracle for zones: Python's own integers, no Numba, no NumPy, no shapely.

Positions are (x, y) in whole 1e-7 degrees. Integers are exact, so nothing here needs a tolerance but the
distances, which follow the geodesic by a method unlike the one they check (Vincenty's iteration and a
ternary search).
"""

from __future__ import annotations

import math
from itertools import pairwise

E7 = 10_000_000


def orientation(a, b, p):
    """1 left of a->b, -1 right of it, 0 on its line."""
    product = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
    return (product > 0) - (product < 0)


def on_segment(a, b, p):
    return (
        orientation(a, b, p) == 0
        and min(a[0], b[0]) <= p[0] <= max(a[0], b[0])
        and min(a[1], b[1]) <= p[1] <= max(a[1], b[1])
    )


def ring_side(ring, p):
    """'on', 'in' or 'out' of one closed ring."""
    inside = False
    for a, b in pairwise(ring):
        if on_segment(a, b, p):
            return "on"
        if (a[1] > p[1]) != (b[1] > p[1]):
            upward = b[1] > a[1]
            if (orientation(a, b, p) > 0) == upward:
                inside = not inside
    return "in" if inside else "out"


def polygon_covers(rings, p):
    """In or on the outer ring, and not strictly inside a hole."""
    if ring_side(rings[0], p) == "out":
        return False
    return all(ring_side(hole, p) != "in" for hole in rings[1:])


def covers(polygons, p):
    """Whether any polygon covers p, under p's own longitude or one a full turn away."""
    turn = 360 * E7
    return any(polygon_covers(rings, (p[0] + k * turn, p[1])) for rings in polygons for k in (-1, 0, 1))


def segments_touch(a, b, c, d):
    straddles = (
        orientation(a, b, c) * orientation(a, b, d) < 0 and orientation(c, d, a) * orientation(c, d, b) < 0
    )
    return (
        straddles or on_segment(a, b, c) or on_segment(a, b, d) or on_segment(c, d, a) or on_segment(c, d, b)
    )


def geodesic_m(p, q):
    """Vincenty's inverse formula on WGS 84; for places that are not antipodal."""
    a = 6378137.0
    f = 1 / 298.257223563
    b = a * (1 - f)
    lon = math.radians((q[0] - p[0]) / E7)
    u1 = math.atan((1 - f) * math.tan(math.radians(p[1] / E7)))
    u2 = math.atan((1 - f) * math.tan(math.radians(q[1] / E7)))
    lam = lon
    for _ in range(100):
        sin_s = math.hypot(
            math.cos(u2) * math.sin(lam),
            math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * math.cos(lam),
        )
        if sin_s == 0:
            return 0.0
        cos_s = math.sin(u1) * math.sin(u2) + math.cos(u1) * math.cos(u2) * math.cos(lam)
        sigma = math.atan2(sin_s, cos_s)
        sin_alpha = math.cos(u1) * math.cos(u2) * math.sin(lam) / sin_s
        cos2_alpha = 1 - sin_alpha**2
        cos_2m = cos_s - 2 * math.sin(u1) * math.sin(u2) / cos2_alpha if cos2_alpha > 1e-18 else 0.0
        c = f / 16 * cos2_alpha * (4 + f * (4 - 3 * cos2_alpha))
        before = lam
        lam = lon + (1 - c) * f * sin_alpha * (sigma + c * sin_s * (cos_2m + c * cos_s * (2 * cos_2m**2 - 1)))
        if abs(lam - before) < 1e-13:
            break
    k2 = cos2_alpha * (a**2 - b**2) / b**2
    big_a = 1 + k2 / 16384 * (4096 + k2 * (-768 + k2 * (320 - 175 * k2)))
    big_b = k2 / 1024 * (256 + k2 * (-128 + k2 * (74 - 47 * k2)))
    shift = (
        big_b
        * sin_s
        * (
            cos_2m
            + big_b
            / 4
            * (cos_s * (2 * cos_2m**2 - 1) - big_b / 6 * cos_2m * (4 * sin_s**2 - 3) * (4 * cos_2m**2 - 3))
        )
    )
    return b * big_a * (sigma - shift)


def edge_distance_m(a, b, p, cuts=8):
    """To the nearest place of the edge a-b, straight in longitude and latitude: a ternary search on each of
    its parts.
    """
    best = math.inf
    for k in range(cuts):
        low, high = k / cuts, (k + 1) / cuts

        def at(t):
            return geodesic_m(p, (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))

        for _ in range(60):
            u, v = low + (high - low) / 3, high - (high - low) / 3
            if at(u) < at(v):
                high = v
            else:
                low = u
        best = min(best, at((low + high) / 2))
    return best
