"""Distances on the WGS 84 ellipsoid, bit-equal on every machine.

Model. A position becomes a point in space (earth-centred, metres). The distance of two positions is the
arc over their straight chord on a sphere of the mean radius: s = 2 R asin(chord / 2 R). The chord is exact;
only the bulge depends on the direction, so the error against the geodesic is below 2 mm up to 50 km, at any
latitude and across the antimeridian (measured in tests/geofence/test_zone_distance.py).

An edge is straight in longitude and latitude (RFC 7946), so in space it is a curve. Its nearest point is
found by Newton's method on the squared chord, on pieces no longer than PIECE_E7, over which it is nearly a
parabola.

Only + - * / and square root are used, in a fixed order, without fastmath, so IEEE 754 fixes every bit.
Sine and cosine are the polynomials of FreeBSD's msun (k_sin.c, k_cos.c; error below 1 unit in the last
place).
"""

from __future__ import annotations

import math

from numba import njit

__all__ = [
    "MEAN_RADIUS_M",
    "PIECE_E7",
    "SATURATED_MM",
    "arc_m",
    "chord_of_arc_m",
    "chord_to_piece2",
    "ecef",
    "sin_cos",
    "sin_cos_near_zero",
    "to_mm",
]

SEMI_MAJOR_M = 6_378_137.0
FLATTENING = 1.0 / 298.257223563
E2 = FLATTENING * (2.0 - FLATTENING)
MEAN_RADIUS_M = 6_371_008.8
PIECE_E7 = 2_500_000  # 0.25 degree: Newton converges in three steps at every latitude
SATURATED_MM = 2_000_000_000
NEWTON_STEPS = 4
# A last step no longer than 0.01 mm, or than 3e-5 of the distance, is not walked: the parabola that Newton's
# method takes it along says how far away its end is. (Leaving it out made the distance to a piece a few
# metres long too large by up to 1.3e-7 of it.)
SETTLED_M2 = 1e-10
SETTLED_RATIO2 = 1e-9

RADIANS_PER_E7 = math.pi / 1_800_000_000.0
QUARTER_E7 = 900_000_000.0
HALF_TURN_E7 = 1_800_000_000.0
HALF_PI = math.pi / 2.0


@njit(cache=True, nogil=True)
def sin_cos_near_zero(r):
    """Sine and cosine of an angle within +-pi / 4, radians."""
    z = r * r
    s = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    s = 2.75573137070700676789e-06 + z * s
    s = -1.98412698298579493134e-04 + z * s
    s = 8.33333333332248946124e-03 + z * s
    s = -1.66666666666666324348e-01 + z * s
    s = r + r * z * s
    c = 2.08757232129817482790e-09 + z * -1.13596475577881948265e-11
    c = -2.75573143513906633035e-07 + z * c
    c = 2.48015872894767294178e-05 + z * c
    c = -1.38888888888741095749e-03 + z * c
    c = 4.16666666666666019037e-02 + z * c
    c = 1.0 - 0.5 * z + z * z * c
    return s, c


@njit(cache=True, nogil=True)
def sin_cos(angle_e7):
    """Sine and cosine of an angle in 1e-7 degree (float64, within +-720 degrees)."""
    turns = math.floor(angle_e7 / QUARTER_E7 + 0.5)
    r = (angle_e7 - turns * QUARTER_E7) * RADIANS_PER_E7
    s, c = sin_cos_near_zero(r)
    quadrant = int(turns) & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:
        return -s, -c
    return -c, s


@njit(cache=True, nogil=True)
def ecef(lon_e7, lat_e7):
    """The point in space, metres, of a position in 1e-7 degree (float64)."""
    sin_lat, cos_lat = sin_cos(lat_e7)
    sin_lon, cos_lon = sin_cos(lon_e7)
    n = SEMI_MAJOR_M / math.sqrt(1.0 - E2 * sin_lat * sin_lat)
    return n * cos_lat * cos_lon, n * cos_lat * sin_lon, n * (1.0 - E2) * sin_lat


@njit(cache=True, nogil=True)
def _asin(x):
    """Arc sine of x in 0..1: a Taylor polynomial up to 0.25, halved angles above (twice at most)."""
    halvings = 0
    while x > 0.25:
        # sin(a / 2) = sqrt((1 - cos a) / 2), written so that nothing cancels
        cosine = math.sqrt(max(0.0, (1.0 - x) * (1.0 + x)))
        x = x / math.sqrt(2.0 * (1.0 + cosine))
        halvings += 1
    z = x * x
    p = 0.012526729 * z
    p = (p + 0.013964843750000000) * z
    p = (p + 0.017352764423076923) * z
    p = (p + 0.022372159090909090) * z
    p = (p + 0.030381944444444444) * z
    p = (p + 0.044642857142857144) * z
    p = (p + 0.075000000000000000) * z
    p = (p + 0.166666666666666667) * z
    a = x + x * p
    for _ in range(halvings):
        a = a + a
    return a


@njit(cache=True, nogil=True)
def arc_m(chord_m):
    """The distance along the surface, metres, of a straight chord in metres."""
    return 2.0 * MEAN_RADIUS_M * _asin(min(1.0, chord_m / (2.0 * MEAN_RADIUS_M)))


@njit(cache=True, nogil=True)
def chord_of_arc_m(arc):
    """The chord of a distance along the surface; the inverse of arc_m to well under a millimetre."""
    sine, _ = sin_cos(min(arc / (2.0 * MEAN_RADIUS_M), HALF_PI) / RADIANS_PER_E7)
    return 2.0 * MEAN_RADIUS_M * sine


@njit(cache=True, nogil=True)
def to_mm(metres):
    """Whole millimetres, half up, at most SATURATED_MM."""
    mm = math.floor(metres * 1000.0 + 0.5)
    return int(mm) if mm < SATURATED_MM else SATURATED_MM


@njit(cache=True, nogil=True)
def chord_to_piece2(ax, ay, dx, dy, x, y, px, py, pz):
    """Squared chord, m2, from a position to the nearest place of a piece of an edge.

    ax, ay     : float64  the piece's first end, 1e-7 degree
    dx, dy     : float64  from there to its other end, 1e-7 degree; both 0: the piece is a point
    x, y       : float64  the position, 1e-7 degree
    px, py, pz : float64  the same in space, metres

    Newton's method on the squared chord, from where the nearest place would be on a plane. A few hundred
    metres away
    one step is enough. Where the chord has no minimum (far off, near a pole) an end of the piece is nearest.
    """
    if dx == 0.0 and dy == 0.0:
        qx, qy, qz = ecef(ax, ay)
        return (px - qx) * (px - qx) + (py - qy) * (py - qy) + (pz - qz) * (pz - qz)
    if x - ax > HALF_TURN_E7:
        x -= 2.0 * HALF_TURN_E7
    elif x - ax < -HALF_TURN_E7:
        x += 2.0 * HALF_TURN_E7
    _, shrink = sin_cos(y)
    wx = dx * shrink
    ex = (x - ax) * shrink
    length2 = wx * wx + dy * dy
    t = 0.5  # seen from a pole a parallel has no length
    if length2 > 0.0:
        t = min(1.0, max(0.0, (ex * wx + (y - ay) * dy) / length2))
    rx = dx * RADIANS_PER_E7
    ry = dy * RADIANS_PER_E7
    best = math.inf
    for step in range(NEWTON_STEPS + 1):
        sin_lat, cos_lat = sin_cos(ay + t * dy)
        sin_lon, cos_lon = sin_cos(ax + t * dx)
        w2 = 1.0 - E2 * sin_lat * sin_lat
        n = SEMI_MAJOR_M / math.sqrt(w2)
        parallel = n * cos_lat
        ex = px - parallel * cos_lon
        ey = py - parallel * sin_lon
        ez = pz - n * (1.0 - E2) * sin_lat
        d2 = ex * ex + ey * ey + ez * ez
        best = min(best, d2)
        if step == NEWTON_STEPS:
            break
        # the tangent and (the meridian radius taken as constant) the second derivative of the curve
        north = ry * n * (1.0 - E2) / w2
        east = rx * parallel
        tx = -north * sin_lat * cos_lon - east * sin_lon
        ty = -north * sin_lat * sin_lon + east * cos_lon
        tz = north * cos_lat
        twist = 2.0 * rx * north * sin_lat
        inward = -ry * north * cos_lat - rx * east
        cx = inward * cos_lon + twist * sin_lon
        cy = inward * sin_lon - twist * cos_lon
        cz = -ry * north * sin_lat
        length2 = tx * tx + ty * ty + tz * tz
        slope = ex * tx + ey * ty + ez * tz
        curvature = length2 - (ex * cx + ey * cy + ez * cz)
        if curvature > 0.0:
            moved = min(1.0, max(0.0, t + slope / curvature))
        else:
            moved = 1.0 if slope > 0.0 else 0.0
        shift = moved - t
        shift2 = shift * shift * length2
        if shift2 <= SETTLED_M2 or shift2 <= SETTLED_RATIO2 * best:
            best = min(best, max(0.0, d2 + shift * (shift * curvature - 2.0 * slope)))
            break
        t = moved
    return best
